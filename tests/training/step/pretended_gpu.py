"""A GPU that is pretended, so that what the host waits for can be counted on any machine.

Tensors on it compute on the CPU, with real numbers, and say that they are on `cuda:0`, so code takes every path that it
takes on a GPU. Whatever needs the device's numbers on the host is listed as a wait: `item`, a boolean mask, a result as
long as the numbers say, a copy that blocks. Tensors of both places in one operator are an error, as on a GPU. What a
kernel does within itself is not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

GPU = torch.device("cuda", 0)
VALUES = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero"}
LENGTHS = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
PACKAGES = ("embfit", "tests", "transformers")


class Wait(NamedTuple):
    """One wait of the host: the operator, and the package whose code has called it."""

    operator: str
    package: str


class OnGpu(Tensor):
    """A tensor on the pretended GPU."""

    held: Tensor
    gpu: PretendedGpu
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor, gpu: PretendedGpu) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
        )
        made.held, made.gpu = held, gpu
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The pretended one."""
        return GPU

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.held})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute on the CPU, and note what a GPU would be waited for."""
        leaves = tree_leaves((args, kwargs))
        gpu = next(leaf.gpu for leaf in leaves if isinstance(leaf, OnGpu))
        gpu.note(func, args, kwargs or {})
        found = func(*tree_map(_held, tuple(args)), **tree_map(_held, dict(kwargs or {})))
        if func._schema.is_mutable:
            return args[0] if isinstance(found, Tensor) else found
        return tree_map(lambda one: OnGpu(one, gpu) if isinstance(one, Tensor) else one, found)


class PretendedGpu(TorchFunctionMode):
    """Has `cuda:0` stand for a GPU that is not there.

    Attributes:
        waits: what the host waited for, in order.
        computed: how many operators the device was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.computed = 0
        self._pinned = WeakTensorKeyDictionary()

    def waited_by(self, package: str) -> list[str]:
        """Return the operators by which the code of a package waited."""
        return [wait.operator for wait in self.waits if wait.package == package]

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Move tensors to and fro, and make new ones where they are asked for."""
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        if func is Tensor.cpu:
            return self._moved(args[0], torch.device("cpu"), non_blocking=False)
        if func is Tensor.pin_memory or kwargs.pop("pin_memory", False):
            pinned = args[0].clone() if func is Tensor.pin_memory else func(*args, **kwargs)
            self._pinned[pinned] = True
            return pinned
        if func is functional.embedding_bag and args[0].ndim == 2:  # makes its offsets where no mode sees it
            rows, width = args[0].shape
            offsets = OnGpu(torch.arange(0, rows * width, width, dtype=args[0].dtype), self)
            kwargs |= {"offsets": offsets, "per_sample_weights": kwargs["per_sample_weights"].flatten()}
            return func(args[0].flatten(), *args[1:], **kwargs)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            made = func(*args, **{**kwargs, "device": "cpu"})
            return made if isinstance(made, OnGpu) else OnGpu(made, self)
        return func(*args, **kwargs)

    def note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Note an operator that the device is given, and whether the host waits for it."""
        name = func._schema.name
        self.computed += 1
        if name in ("aten::detach", "aten::alias"):
            return
        if name == "aten::copy_":
            self._note_copy(*args, **kwargs)
            return
        if name in VALUES | LENGTHS or (name == "aten::repeat_interleave" and kwargs.get("output_size") is None):
            self._wait(name)
        elif name in INDEXED:
            masks = [one for one in args[1] if one is not None and one.dtype in (torch.bool, torch.uint8)]
            if masks or any(one is not None and not isinstance(one, OnGpu) for one in args[1]):
                self._wait("a boolean mask" if masks else "an index on the CPU")
            return
        beside = [one for one in tree_leaves((args, dict(kwargs))) if isinstance(one, Tensor) and one.ndim]
        if not all(isinstance(one, OnGpu) for one in beside):
            raise RuntimeError(f"{name}: tensors of the CPU and of the GPU")

    def _note_copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> None:
        if isinstance(target, OnGpu) == isinstance(source, OnGpu):
            return
        here = source if isinstance(target, OnGpu) else target
        if not (non_blocking and here in self._pinned):
            self._wait("aten::copy_")

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            device, kind, non_blocking = args[0].device, args[0].dtype, False
        else:
            device, kind, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[attr-defined]
        if kind is not None and kind != tensor.dtype:
            tensor = tensor.to(kind)
        return tensor if device is None else self._moved(tensor, device, non_blocking)

    def _moved(self, tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        if tensor.device.type == device.type:
            return tensor
        if isinstance(tensor, OnGpu):
            self._wait("to the CPU")
            return tensor.held.clone()
        if not (non_blocking and tensor in self._pinned) and tensor.numel():
            self._wait("to the GPU")
        return OnGpu(tensor.detach(), self)

    def _wait(self, operator: str) -> None:
        frame: FrameType | None = sys._getframe()
        modules = []
        while frame is not None:
            modules.append(str(frame.f_globals.get("__name__", "")))
            frame = frame.f_back
        packages = (module.partition(".")[0] for module in modules if module != __name__)
        self.waits.append(Wait(operator, next(package for package in packages if package in PACKAGES)))


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


class _Event:
    def record(self) -> None:
        """Pretend."""

    def synchronize(self) -> None:
        """Pretend."""


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """Have `cuda:0` stand for a GPU that is not there, in this context."""
    group: Callable[..., Any] = torch._C._group_tensors_by_device_and_dtype

    def grouped(tensors: Any, *rest: Any) -> dict[Any, Any]:
        """Group with the devices that Python is told of; C++ sees where the numbers are."""
        return {
            (GPU if any(isinstance(one, OnGpu) for one in tree_leaves(lists)) else device, kind): (lists, places)
            for (device, kind), (lists, places) in group(tensors, *rest).items()
        }

    def backward(loss: Tensor, gradient: Tensor | None = None) -> None:
        """Run a backward pass inside the mode, which PyTorch's own function leaves for as long as it takes."""
        gradients = torch.autograd._make_grads((loss,), (gradient,), is_grads_batched=False)
        torch.autograd.graph._engine_run_backward(
            (loss,), gradients, False, False, (), allow_unreachable=True, accumulate_grad=True
        )

    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)  # not their numbers alone
    with PretendedGpu() as gpu:
        yield gpu
