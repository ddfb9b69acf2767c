"""A converted backbone, as ONNX Runtime or OpenVINO computes it on a CPU.

A graph gives the last hidden states alone. Prompts, pooling, dense layers and unit length stay PyTorch's, in fp32, so
every kind of encoder has them by every back end.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embfit.errors import ConfigError

BackEnd: TypeAlias = Literal["torch", "onnx", "openvino"]
GraphBackEnd: TypeAlias = Literal["onnx", "openvino"]
GraphPrecision: TypeAlias = Literal["fp32", "bf16", "int8"]

INPUTS = ("input_ids", "attention_mask")
HIDDEN = "token_embeddings"  # the graph's output: [N, L, H], as Optimum and TEI name it
FILES: dict[GraphBackEnd, str] = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
PACKAGES: dict[GraphBackEnd, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
STEP = 8  # lengths are padded to a multiple of it: both libraries prepare kernels for each new shape

Run: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(eq=False)
class Graph:
    """A converted backbone in a file. It is opened when first used, and computes with as many threads as PyTorch.

    Pickled, it is its file's name: another process opens it again.

    Args:
        back_end: the library that computes it.
        precision: what it computes in.
        path: the file.
        longest: tokens that the model reads at most: texts are not padded beyond, where it may have no positions.
        digest: identifies the file where the weights do not, as they do not after quantisation.
        kept: is kept alive as long as the graph, such as the store whose folder the file is in.
    """

    back_end: GraphBackEnd
    precision: GraphPrecision
    path: Path
    longest: int
    digest: str | None = None
    kept: object = None
    _run: Run | None = field(default=None, init=False, repr=False)
    _threads: int = field(default=0, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Graph, (self.back_end, self.precision, self.path, self.longest, self.digest)

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last hidden states, [N, L] int64 each → [N, L, H] float32."""
        length = input_ids.shape[1]
        room = max(self.longest - length, 0)
        padding = (0, min(-length % STEP, room))
        ids, mask = (functional.pad(one, padding).numpy() for one in (input_ids, attention_mask))
        with self._lock:  # an OpenVINO request computes one batch at a time
            if self._run is None or self._threads != torch.get_num_threads():
                self._threads = torch.get_num_threads()
                self._run = open_graph(self.back_end, self.precision, self.path, HIDDEN)
            found = self._run(ids, mask)
        return torch.from_numpy(found)[:, :length]


def installed(back_end: GraphBackEnd) -> bool:
    """Say whether the packages of a back end are there."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES[back_end])


def check_installed(back_end: GraphBackEnd, setting: str) -> None:
    """Make sure that a back end's packages are there.

    Args:
        back_end: which.
        setting: the setting that asks for it, for the message.

    Raises:
        ConfigError: they are not.
    """
    if not installed(back_end):
        missing = ", ".join(name for name in PACKAGES[back_end] if importlib.util.find_spec(name) is None)
        raise ConfigError(
            f"{setting}={back_end} needs {missing}, which is not installed: pip install 'embfit[{back_end}]'"
        )


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import to its makers; it has a stub in its place."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as Python marks what cannot be had
    import openvino

    return openvino


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux: the memory that signal handlers of a thread run in."""

    _fields_: ClassVar = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Let this thread have the stack for signal handlers that it had before (sigaltstack), on Linux.

    OpenVINO's CPU plugin gives the thread one of its own when it compiles, and frees it with the model: the next Ctrl-C
    would end in a segmentation fault (seen with 2026.4).
    """
    if sys.platform != "linux":
        yield
        return
    change = ctypes.CDLL(None).sigaltstack
    before = _SignalStack()
    change(None, ctypes.byref(before))
    try:
        yield
    finally:
        change(ctypes.byref(before), None)


def open_graph(back_end: GraphBackEnd, precision: GraphPrecision, path: Path, output: str) -> Run:
    """Return what computes one output of a graph file from token ids and their mask ([N, L] int64 each)."""
    threads = torch.get_num_threads()
    if back_end == "onnx":
        return _open_onnx(path, threads, output)
    return _open_openvino(path, precision, threads, output)


def _open_onnx(path: Path, threads: int, output: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; warnings are about how it optimises
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([output], {INPUTS[0]: ids, INPUTS[1]: mask})[0]
        return found

    return run


def _open_openvino(path: Path, precision: GraphPrecision, threads: int, output: str) -> Run:
    core = import_openvino().Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",  # its own default is bf16, unsaid
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    with _signal_stack_kept():
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found: np.ndarray = request.infer({INPUTS[0]: ids, INPUTS[1]: mask}, share_inputs=True)[output]
        return found

    return run
