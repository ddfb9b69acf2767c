"""Static int8: a graph in which ONNX Runtime or OpenVINO computes products with weights in 8 bits.

The range of each activation is measured once, on calibration texts, and stored in the graph. So a text's vector does
not depend on the other texts of its batch. Dynamic int8 uses one scale for a whole batch, so there it does (MiniLM: up
to 1.3e-2 of 1 - cosine). Weights have a scale for each output channel. ONNX Runtime computes attention's own products,
norms and softmax in fp32. OpenVINO computes them in bf16 if the CPU supports it.

A quantised graph is kept in its model's folder, because the weights alone do not determine its results. Tested with
ONNX Runtime 1.32 and OpenVINO 2026.4.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as release
from pathlib import Path

import numpy as np

from embfit.atomic_files import FileFacts, write_text
from embfit.errors import UserError, first_line, is_disk_full
from embfit.model.back_ends.graph import INPUTS, Graph, GraphBackEnd, in_bf16
from embfit.model.encoder import Encoder
from embfit.model.fingerprint import backbone_fingerprint
from embfit.model.precision import multiplies_int8
from embfit.store import Store, digest
from embfit.tokens import ATTENDED, Tokens

log = logging.getLogger(__name__)

VERSION = 1  # version of the store's quantised graphs
PRODUCTS = ("MatMul", "Gemm")
FOLDER, GRAPH, RECORD = "onnx", "model_int8.onnx", "int8.json"  # sub-folder of a model's folder
REMEDY = "task=quantize makes one: embfit quantize model=custom model.path=FOLDER data=beir data.path=DIR"


@dataclass(frozen=True)
class Int8Record:
    """The record beside a quantised graph.

    Args:
        backbone: identifies the weights that it was made from (`backbone_fingerprint`).
        calibration: identifies the calibration tokens.
        texts: the number of calibration texts.
        full_range: whether weights have 8 bits, not 7. x86 processors without VNNI sum pairs of products in 16 bits,
            which overflow with 8 bits.
        onnxruntime: the release of ONNX Runtime.
    """

    backbone: str
    calibration: str
    texts: int
    full_range: bool
    onnxruntime: str


def quantize_graph(
    encoder: Encoder, graph: Graph, tokens: Tokens, store: Store, back_end: GraphBackEnd = "onnx"
) -> Graph:
    """Return an encoder's graph in static int8; made once for the same graph and calibration.

    Args:
        encoder: the encoder of the backbone.
        graph: the graph in fp32, in a store entry whose name identifies it.
        tokens: the calibration texts, with their prompts.
        store: keeps the quantised graph.
        back_end: computes the graph; ONNX Runtime makes it in any case.

    Raises:
        UserError: ONNX Runtime cannot quantise the graph.
    """
    calibration = digest(
        {
            "ids": _digest(tokens.ids),
            "lengths": _digest(tokens.lengths),
            "roles": None if tokens.roles is None else _digest(tokens.roles),
            "padding": [encoder.pad_id, encoder.pads_left],  # padding would add its own activations
        }
    )
    record = Int8Record(
        backbone_fingerprint(encoder.backbone), calibration, len(tokens), multiplies_int8(), release("onnxruntime")
    )
    key = {**asdict(record), "graph": graph.path.parent.name}

    def build(folder: Path) -> None:
        log.info("quantising %s on %d texts", encoder.source, len(tokens))
        try:
            _write_static_int8(graph.path, folder / GRAPH, _Batches(encoder, tokens), record.full_range)
        except Exception as error:  # it raises any exception
            if is_disk_full(error):
                raise
            raise UserError(f"{encoder.source} cannot be quantised: {first_line(error)}") from error
        write_text(folder / RECORD, json.dumps(asdict(record), indent=2) + "\n")

    folder = store.entry("int8_graphs", key, build, version=VERSION)
    return _open(folder, encoder.max_length, back_end, store)


def holds_quantized(folder: Path) -> bool:
    """Return whether a model's folder has a quantised graph."""
    return (folder / FOLDER / RECORD).is_file() and (folder / FOLDER / GRAPH).is_file()


def read_quantized(encoder: Encoder, folder: Path, back_end: GraphBackEnd) -> Graph:
    """Return the quantised graph in a model's folder.

    Args:
        encoder: the encoder that was loaded from the folder.
        folder: the model's folder.
        back_end: computes the graph.

    Raises:
        UserError: there is none, it was made from other weights, or this processor would compute it wrongly.
    """
    place = folder / FOLDER
    if not holds_quantized(folder):
        raise UserError(f"model.precision=int8: {folder} has no graph in int8; {REMEDY}")
    record = _read(place / RECORD)
    if record.backbone != backbone_fingerprint(encoder.backbone):
        raise UserError(f"{place / GRAPH} was made of other weights than {folder} has; {REMEDY}")
    if record.full_range and not multiplies_int8():
        raise UserError(
            f"{place / GRAPH} was made for processors that multiply 8 bits (VNNI), and this one would overflow; make "
            "one here (task=quantize), or set model.precision=fp32"
        )
    return _open(place, encoder.max_length, back_end, None)


def copy_quantized(graph: Graph, folder: Path) -> None:
    """Copy a quantised graph into a model's folder."""
    (folder / FOLDER).mkdir(exist_ok=True)
    for name in (GRAPH, RECORD):
        shutil.copyfile(graph.path.parent / name, folder / FOLDER / name)


def _open(folder: Path, longest: int, back_end: GraphBackEnd, kept: object) -> Graph:
    facts = {"graph": FileFacts.of(folder / GRAPH).sha256, "calibration": _read(folder / RECORD).calibration}
    if in_bf16(back_end, "int8"):
        facts["remaining_operations"] = "bf16"
    return Graph(back_end, "int8", folder / GRAPH, longest, digest(facts), kept)


def _read(path: Path) -> Int8Record:
    try:
        return Int8Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); make the graph again (task=quantize)") from error


class _Batches:
    """Batches of calibration texts, as ONNX Runtime's `CalibrationDataReader` gives them: one by one, then None."""

    def __init__(self, encoder: Encoder, tokens: Tokens) -> None:
        self._batches = self._padded(encoder, tokens)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)

    @staticmethod
    def _padded(encoder: Encoder, tokens: Tokens) -> Iterator[dict[str, np.ndarray]]:
        for texts in encoder.plan(tokens):
            ids, roles = tokens.padded(texts, encoder.pad_id, encoder.pads_left)
            yield dict(zip(INPUTS, (ids.numpy(), (roles & ATTENDED).numpy()), strict=True))


def _write_static_int8(source: Path, path: Path, batches: _Batches, full_range: bool) -> None:
    from onnx import TensorProto
    from onnxruntime import quantization

    with _quiet():
        quantization.quantize_static(
            source,
            path,
            batches,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=_products_with_weights(source),
            per_channel=True,
            reduce_range=not full_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
                "DefaultTensorType": TensorProto.FLOAT,
                "WeightSymmetric": True,
            },
        )


def _products_with_weights(path: Path) -> list[str]:
    """Return the names of a graph's matrix products with a constant side.

    Raises:
        UserError: there are none.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constant = {one.name for one in graph.initializer}
    found = [node.name for node in graph.node if node.op_type in PRODUCTS and node.input[1] in constant and node.name]
    if not found:
        raise UserError("its graph has no product with weights")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the advice that ONNX Runtime's quantisation logs on the root logger; other loggers still work."""
    root = logging.getLogger()
    root.addFilter(_is_error)
    try:
        yield
    finally:
        root.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
