"""Weights in shards (FSDP): each rank keeps a part of every weight, of its gradient and of its two moments.

PyTorch's `fully_shard` gathers a unit's weights before it computes, frees them afterwards, and gives each rank its part
of the gradients' sum as soon as the unit's backward pass is done. Ranks must make the same passes in the same order,
which `BatchGradients` sees to. Lightning's strategies for sharding are not used: they start processes, join them and
write checkpoints, as embfit does itself.

Beside its shards, the first rank keeps the whole encoder in the CPU's memory. It is given the trained weights when it
is measured, mines or is saved. So only training meets a weight in shards, and an adapter's are all that is gathered
where the others are frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from embfit.errors import UserError
from embfit.model import CrossEncoder, Encoder
from embfit.model.precision import Precision, uses_bf16
from embfit.training.ranks.collectives import Ranks
from embfit.training.ranks.units import Unit, units_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY = 1e-6  # as in PyTorch's own clipping
GATHERS_IN_BF16 = ("cuda",)  # autocast on a CPU does not cast the weights of a norm to what it computes in


class Shards:
    """An encoder in shards, which is trained, and on the first rank the whole one.

    Args:
        encoder: the whole encoder. On the first rank it is moved to the CPU, and a copy of it is shared out; on the
            others it is shared out itself.
        ranks: the processes that train together, all of which make this object.
        precision: the number format in which training computes.

    Raises:
        UserError: the encoder cannot be shared out, or this PyTorch cannot do it.
    """

    def __init__(self, encoder: Encoder | CrossEncoder, ranks: Ranks, precision: Precision) -> None:
        self.place = encoder.device
        self.whole = encoder.cpu() if ranks.leads else None
        self.encoder = deepcopy(encoder) if ranks.leads else encoder
        bf16 = _kind() in GATHERS_IN_BF16 and uses_bf16(precision, torch.device(_kind()))
        share_out(self.encoder.backbone, _behind(self.encoder), bf16)
        for name, weight in self.encoder.named_parameters():
            if not isinstance(weight, DTensor):
                raise UserError(
                    f"trainer.strategy=fsdp cannot share out {name}, which is in neither the backbone nor a layer "
                    "behind it; set trainer.strategy=ddp"
                )

    @torch.no_grad()
    def gather(self) -> None:
        """Give the whole encoder the weights that are trained; all ranks take part."""
        for name, weight in self.encoder.named_parameters():
            if weight.requires_grad:
                found = cast(DTensor, weight).full_tensor()
                if self.whole is not None:
                    self.whole.get_parameter(name).copy_(found)
        if _kind() == "cuda":
            torch.cuda.empty_cache()  # for the first rank and its processes, which encode on this GPU next

    @contextmanager
    def measurable(self) -> Iterator[Encoder | CrossEncoder]:
        """Gather, and lend the whole encoder on the device of the task; on other ranks there is none to compute with.

        All ranks take part.
        """
        self.gather()
        if self.whole is None:
            yield self.encoder
            return
        self.whole.to(self.place)
        try:
            yield self.whole
        finally:
            self.whole.cpu()

    def gather_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's state as if its weights were whole: empty but on the first rank; all take part."""
        state = optimizer.state_dict()
        whole: dict[int, dict[str, Any]] = {}
        for number, moments in state["state"].items():
            for name, value in moments.items():
                found = value.full_tensor().cpu() if isinstance(value, DTensor) else value
                if self.whole is not None:
                    whole.setdefault(number, {})[name] = found
        return {**state, "state": whole}

    @staticmethod
    def share_state(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """Return this rank's part of a state that `gather_state` returned, or that an optimizer without shards has."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        parts = {
            number: {name: _part(value, weights[number]) for name, value in moments.items()}
            for number, moments in state["state"].items()
        }
        return {**state, "state": parts}


def clip_gradients(sharded: Iterable[nn.Parameter], whole: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale gradients down to a norm, as `nn.utils.clip_grad_norm_` does; return the norm before, that of all ranks.

    Args:
        sharded: weights of which each rank has a part.
        whole: weights that every rank has, with the same gradients.
        most: the norm that is left, at most.
    """
    parts = [cast(DTensor, weight.grad).to_local() for weight in sharded if weight.grad is not None]
    others = [weight.grad for weight in whole if weight.grad is not None]
    squares = _square_of_norm(parts)
    distributed.all_reduce(squares)
    norm = (squares + _square_of_norm(others)).sqrt() if others else squares.sqrt()
    scale = (most / (norm + TINY)).clamp(max=1.0)
    for gradient in (*parts, *others):
        gradient.mul_(scale)
    return norm


def _square_of_norm(gradients: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).square().sum()


def share_out(backbone: PreTrainedModel, behind: Iterable[nn.Module], bf16: bool) -> None:
    """Leave of each weight of a model this rank's part, on this rank's device.

    Args:
        backbone: the model.
        behind: layers that follow it.
        bf16: whether layers are gathered in bf16.

    Raises:
        UserError: the backbone cannot be shared out, or this PyTorch cannot do it.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UserError(
            f"trainer.strategy=fsdp: PyTorch {torch.__version__} cannot sum the gradients of shards; install a newer "
            "one (2.13 is tested), or set trainer.strategy=ddp"
        )
    mesh = init_device_mesh(_kind(), (distributed.get_world_size(),))
    for unit in (*units_of(backbone, bf16), *map(Unit, behind)):
        policy = MixedPrecisionPolicy(unit.gathered_as, torch.float32, cast_forward_inputs=False)  # autocast casts them
        module = fully_shard(unit.module, mesh=mesh, mp_policy=policy)
        module.set_gradient_divide_factor(1.0)  # the loss is that of the whole batch already, so no mean is wanted
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def _kind() -> str:
    """Return the kind of device on which ranks keep their parts."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def _behind(encoder: nn.Module) -> list[nn.Module]:
    """Return the modules with weights that follow the backbone."""
    children = [child for name, child in encoder.named_children() if name != "backbone"]
    modules = [part for child in children for part in (child if isinstance(child, nn.ModuleList) else [child])]
    return [module for module in modules if next(module.parameters(), None) is not None]


def _part(value: Any, weight: Tensor) -> Any:
    """Return this rank's part of a moment of a weight; what has another shape, such as the count of steps, stays."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    mesh = weight.device_mesh
    chunks, rank = value.chunk(mesh.size()), mesh.get_local_rank()
    local = chunks[rank] if rank < len(chunks) else value[:0]
    return DTensor.from_local(
        local.to(weight.device, copy=True),
        mesh,
        weight.placements,
        run_check=False,
        shape=value.shape,
        stride=value.stride(),
    )
