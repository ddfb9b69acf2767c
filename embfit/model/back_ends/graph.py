"""A converted backbone, computed by ONNX Runtime or OpenVINO on a CPU.

A graph gives only the last hidden states. PyTorch still does prompts, pooling, dense layers and normalisation in fp32,
so every kind of encoder works with every back end.
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
from embfit.model.precision import multiplies_bf16

BackEnd: TypeAlias = Literal["torch", "onnx", "openvino"]
GraphBackEnd: TypeAlias = Literal["onnx", "openvino"]
GraphPrecision: TypeAlias = Literal["fp32", "bf16", "int8"]

INPUTS = ("input_ids", "attention_mask")
HIDDEN = "token_embeddings"  # the graph's output: [N, L, H], under the name that Optimum and TEI use
FILES: dict[GraphBackEnd, str] = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
PACKAGES: dict[GraphBackEnd, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
STEP = 8  # lengths are padded to a multiple of it: both libraries prepare kernels for each new shape

Run: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(eq=False)
class Graph:
    """A converted backbone in a file. It is opened at its first use and computes with as many threads as PyTorch.

    It is pickled as its file's name, and another process opens it again.

    Args:
        back_end: the library that computes it.
        precision: the number format.
        path: the file.
        longest: the most tokens that the model reads; texts are not padded beyond, where it may have no positions.
        digest: identifies the file if the weights do not, as after quantisation.
        kept: an object to keep alive as long as the graph, such as the store with the file.
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
    """Return whether the packages of a back end are installed."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES[back_end])


def check_installed(back_end: GraphBackEnd, setting: str) -> None:
    """Check that a back end's packages are installed.

    Args:
        back_end: the back end.
        setting: the key of the setting, for the message.

    Raises:
        ConfigError: a package is missing.
    """
    if not installed(back_end):
        missing = ", ".join(name for name in PACKAGES[back_end] if importlib.util.find_spec(name) is None)
        raise ConfigError(
            f"{setting}={back_end} needs {missing}, which is not installed: pip install 'embfit[{back_end}]'"
        )


def import_openvino() -> Any:
    """Import OpenVINO with a stub instead of its telemetry, which reports each import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as Python marks what cannot be had
    import openvino

    return openvino


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux: the memory that signal handlers of a thread run in."""

    _fields_: ClassVar = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Restore this thread's stack for signal handlers (sigaltstack) after the block, on Linux.

    OpenVINO's CPU plugin installs its own stack when it compiles, and frees it with the model: the next Ctrl-C would
    then cause a segmentation fault (seen with 2026.4).
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


def in_bf16(back_end: GraphBackEnd, precision: GraphPrecision) -> bool:
    """Return whether a graph's operations run in bf16, or in int8 its operations without weights."""
    on_this_cpu = multiplies_bf16(torch.device("cpu"))
    return precision == "bf16" or (precision == "int8" and back_end == "openvino" and on_this_cpu)


def open_graph(back_end: GraphBackEnd, precision: GraphPrecision, path: Path, output: str) -> Run:
    """Return a function that computes one output of a graph file from token ids and their mask ([N, L] int64 each)."""
    threads = torch.get_num_threads()
    if back_end == "onnx":
        return _open_onnx(path, threads, output)
    return _open_openvino(path, precision, threads, output)


def _open_onnx(path: Path, threads: int, output: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; its warnings are about optimisation
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([output], {INPUTS[0]: ids, INPUTS[1]: mask})[0]
        return found

    return run


def _open_openvino(path: Path, precision: GraphPrecision, threads: int, output: str) -> Run:
    core = import_openvino().Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bf16("openvino", precision) else "f32",  # else it decides silently
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    with _signal_stack_kept():
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found: np.ndarray = request.infer({INPUTS[0]: ids, INPUTS[1]: mask}, share_inputs=True)[output]
        return found

    return run
