"""Converts a PyTorch module to a graph file by `torch.onnx.export`.

Two exporters are tried. Tracing (`dynamo=False`) takes a second and gives plain operations, whose attention both
runtimes fuse. `torch.export` takes longer and supports models that cannot be traced. Either may give a graph that only
works for the shape of its example, so each graph is checked before it gets its name. Tested with PyTorch 2.13.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from embfit.errors import UserError, is_disk_full
from embfit.model.back_ends.graph import FILES, INPUTS, GraphBackEnd, import_openvino

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

OPSET = 18
TOKENWISE: Mapping[int, str] = {0: "batch", 1: "length"}  # the variable dimensions of [N, L] and [N, L, H]
EXAMPLE = (2, 16)  # texts and tokens; neither may be 1, which exporters treat as a constant
MESSAGE = 300  # characters of an error that a message quotes
TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers that log every operation

Outputs: TypeAlias = Mapping[str, Mapping[int, str]]
"""What a module returns: the dimensions of each that vary, by their place; `batch` is N and `length` L."""

Check: TypeAlias = Callable[[Path], str | None]
"""Takes a graph file, and says what is wrong with it; None where nothing is."""


def convert(
    module: nn.Module,
    backbone: PreTrainedModel,
    outputs: Outputs,
    back_end: GraphBackEnd,
    folder: Path,
    check: Check,
) -> Path:
    """Write a module of token ids and their mask ([N, L] each) as a graph for any N and L.

    Args:
        module: the module to export.
        backbone: the part of it that uses plain attention while it is traced.
        outputs: what the module returns, in order.
        back_end: the library whose format is written.
        folder: gets the file, named by `FILES`, and its further files.
        check: checks each exporter's file.

    Raises:
        UserError: no exporter gives a graph that passes.
    """
    module.eval()  # otherwise exporting would leave the backbone in training mode, with dropout
    failures = []
    for exporter in EXPORTERS:
        scratch = folder / exporter.__name__.strip("_")
        scratch.mkdir(parents=True)
        try:
            with _quiet():
                exporter(module, backbone, outputs, scratch / FILES["onnx"])
                path = _in_format(back_end, scratch / FILES["onnx"])
            reason = check(path)
        except Exception as error:  # exporters and runtimes raise any exception
            if is_disk_full(error):
                raise
            reason = (
                " ".join(str(error).split())[:MESSAGE] or type(error).__name__
            )  # the first line of a runtime's error is only a place in its source
        if reason is None:
            for file in [*path.parent.iterdir()]:
                if file.is_file():
                    file.rename(folder / file.name)
            shutil.rmtree(scratch)
            return folder / path.name
        shutil.rmtree(scratch)
        log.debug("%s of %s: %s", exporter.__name__, type(backbone).__name__, reason)
        failures.append(reason)
    raise UserError(
        f"{type(backbone).__name__} cannot be converted for {back_end} ({'; '.join(dict.fromkeys(failures))}); choose "
        "the back end torch"
    )


def _trace(module: nn.Module, backbone: PreTrainedModel, outputs: Outputs, path: Path) -> None:
    """Record the operations of one call."""
    before = backbone.config._attn_implementation
    backbone.set_attn_implementation("eager")
    try:
        torch.onnx.export(
            module,
            _example(),
            path,
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in {**dict.fromkeys(INPUTS, TOKENWISE), **outputs}.items()},
            opset_version=OPSET - 1,  # the newest version that this exporter writes
            dynamo=False,
        )
    finally:
        backbone.set_attn_implementation(before)


def _export(module: nn.Module, backbone: PreTrainedModel, outputs: Outputs, path: Path) -> None:
    """Export through `torch.export`."""
    shape = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    torch.onnx.export(
        module,
        _example(),
        path,
        input_names=list(INPUTS),
        output_names=list(outputs),
        dynamic_shapes=(shape, shape),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )


EXPORTERS = (_trace, _export)


def _example() -> tuple[Tensor, Tensor]:
    """Return token ids and a mask, with padding."""
    ids = torch.arange(EXAMPLE[0] * EXAMPLE[1]).reshape(EXAMPLE) % 7 + 1
    mask = torch.ones_like(ids)
    mask[1, EXAMPLE[1] // 2 :] = 0
    return ids, mask


def _in_format(back_end: GraphBackEnd, path: Path) -> Path:
    """Convert an ONNX file to the back end's format, in a folder without the ONNX file."""
    if back_end == "onnx":
        return path
    openvino = import_openvino()
    found = path.parent / "openvino" / FILES["openvino"]
    found.parent.mkdir()
    openvino.save_model(openvino.Core().read_model(path), found, compress_to_fp16=False)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' usual log lines."""
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
