"""Chooses an encoder's back end and converts its graph once for given weights, checked against PyTorch's vectors.

A graph is kept in the store under everything that it depends on, so a changed weight gives another graph. `auto` times
the installed back ends and stores the result: the next run on the same machine makes the same choice.
"""

from __future__ import annotations

import json
import logging
import platform
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version as release
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from embfit.atomic_files import write_text
from embfit.errors import ConfigError, UserError
from embfit.model.back_ends.conversion import TOKENWISE, convert
from embfit.model.back_ends.graph import (
    FILES,
    HIDDEN,
    PACKAGES,
    Graph,
    GraphBackEnd,
    GraphPrecision,
    check_installed,
    installed,
)
from embfit.model.back_ends.static_int8 import read_quantized
from embfit.model.compiled import hidden_states
from embfit.model.encoder import Encoder
from embfit.model.fingerprint import backbone_fingerprint
from embfit.model.precision import EncoderPrecision, Precision, by_pytorch, multiplies_bf16
from embfit.store import Store
from embfit.tokens import ATTENDED, SCORED, Tokens

log = logging.getLogger(__name__)

BackEndChoice: TypeAlias = Literal["torch", "onnx", "openvino", "auto"]

GRAPHS = 1  # version of the store's graphs
TIMES = 1  # and of its timings
SHAPES = (
    (1, 4),
    (3, 17),
    (2, 64),
    (1, 256),
)  # texts and tokens of the batches on which a graph is compared with PyTorch
LIMITS: Mapping[GraphPrecision, float] = {
    "fp32": 1e-3,
    "bf16": 5e-2,
}  # limit of the distance of two vectors, relative to their length
TIMED = ((1, 16), (8, 128))  # a query and a batch of documents
ROUNDS = 5


def choose_back_end(
    encoder: Encoder,
    back_end: BackEndChoice,
    precision: EncoderPrecision,
    store: Store | None,
    setting: str = "model.backend",
) -> None:
    """Switch an encoder to a back end; with any but PyTorch it can no longer be trained.

    Args:
        encoder: the encoder, which is changed in place.
        back_end: the back end; `auto` is the fastest installed one, and PyTorch on a GPU.
        precision: the number format; auto is bf16 if the back end and the CPU support it. int8 is the graph in the
            folder that the encoder was loaded from.
        store: keeps graphs and timings; None keeps them only as long as the encoder.
        setting: the key of the setting, for messages.

    Raises:
        ConfigError: the back end is not installed, or does not support this device or this precision.
        UserError: the model cannot be converted, or its graph gives different vectors; or its folder has no int8 graph.
    """
    store = store or Store(enabled=False)
    if precision == "int8" and back_end not in PACKAGES:
        raise ConfigError(f"{setting}={back_end} does not compute in int8; set {setting}=openvino, or onnx")
    if back_end == "auto":
        encoder.graph = _fastest(encoder, by_pytorch(precision), store)
    elif back_end == "torch":
        encoder.graph = None
    else:
        check_installed(back_end, setting)
        if encoder.device.type != "cpu":
            raise ConfigError(
                f"{setting}={back_end} computes on a CPU, and the model is on {encoder.device}; set {setting}=torch, "
                "or trainer=cpu"
            )
        if precision == "int8":
            encoder.graph = read_quantized(encoder, Path(encoder.source), back_end)
        else:
            encoder.graph = convert_backbone(encoder, back_end, graph_precision(back_end, precision), store)


def graph_precision(back_end: GraphBackEnd, asked: Precision) -> GraphPrecision:
    """Return a back end's number format on this machine's CPU.

    Raises:
        ConfigError: the back end or the CPU does not support the requested precision.
    """
    there = multiplies_bf16(torch.device("cpu"))
    if asked == "auto":
        return "bf16" if back_end == "openvino" and there else "fp32"
    if asked == "bf16" and back_end == "onnx":
        raise ConfigError(
            "model.precision=bf16: ONNX Runtime computes in fp32 on a CPU; set model.precision=fp32, or "
            "model.backend=openvino"
        )
    if asked == "bf16" and not there:
        raise ConfigError(
            "model.precision=bf16: this CPU multiplies no bf16, and OpenVINO would compute in fp32; set "
            "model.precision=fp32"
        )
    return asked


def distance_to_torch(encoder: Encoder, graph: Graph) -> float:
    """Return the largest distance, relative to their length, between a graph's vectors and PyTorch's in fp32.

    Texts are random tokens in batches of `SHAPES`, some with padding.
    """
    worst = 0.0
    for shape in SHAPES:
        ids, roles = probe_batch(encoder, shape)
        expected = _vectors(encoder, None, ids, roles)
        found = _vectors(encoder, graph, ids, roles)
        if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
            return float("inf")
        worst = max(worst, float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max()))
    return worst


class HiddenStates(nn.Module):
    """A backbone as a function of token ids and their mask, [N, L] each → [N, L, H]."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self.options = encoder.backbone_options

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last hidden states."""
        return hidden_states(self.backbone, input_ids, attention_mask, self.options)


def convert_backbone(encoder: Encoder, back_end: GraphBackEnd, precision: GraphPrecision, store: Store) -> Graph:
    """Return the graph of an encoder's backbone in fp32 or bf16, converted unless the store has it.

    Raises:
        UserError: the model cannot be converted, or its graph gives different vectors.
    """
    precisions: list[GraphPrecision] = ["fp32"]
    if back_end == "openvino" and multiplies_bf16(torch.device("cpu")):
        precisions.append("bf16")

    def wrong(path: Path) -> str | None:
        for one in precisions:
            distance = distance_to_torch(encoder, Graph(back_end, one, path, encoder.max_length))
            if not distance <= LIMITS[one]:
                return f"in {one} its vectors are {distance:.2g} of their length from PyTorch's, limit {LIMITS[one]:g}"
        return None

    def build(folder: Path) -> None:
        log.info("converting %s for %s", encoder.source, back_end)
        convert(HiddenStates(encoder), encoder.backbone, {HIDDEN: TOKENWISE}, back_end, folder, wrong)

    folder = store.entry("graphs", _key(encoder, back_end, precisions), build, version=GRAPHS)
    return Graph(back_end, precision, folder / FILES[back_end], encoder.max_length, kept=store)


def _key(encoder: Encoder, back_end: GraphBackEnd, precisions: list[GraphPrecision]) -> dict[str, Any]:
    """Return everything that a checked graph depends on."""
    return {
        "backbone": backbone_fingerprint(encoder.backbone),
        "head": [type(encoder).__name__, *(layer.description for layer in encoder.head)],
        "back_end": back_end,
        "checked_in": list(precisions),
        "versions": {name: release(name) for name in ("torch", "transformers", *PACKAGES[back_end])},
    }


def _fastest(encoder: Encoder, precision: Precision, store: Store) -> Graph | None:
    """Return the graph of the fastest back end; None if that is PyTorch."""
    there: list[GraphBackEnd] = [one for one in ("openvino", "onnx") if installed(one)]
    if encoder.device.type != "cpu" or not there:
        return None
    graphs: dict[str, Graph] = {}
    for back_end in there:
        try:
            graphs[back_end] = convert_backbone(encoder, back_end, graph_precision(back_end, precision), store)
        except ConfigError:
            continue  # it does not support this precision
        except UserError as error:
            log.warning("model.backend=auto leaves %s out: %s", back_end, error)
    if not graphs:
        return None
    key = {
        "backbone": backbone_fingerprint(encoder.backbone),
        "torch": [release("torch"), encoder.computes_in],
        "graphs": {name: [graph.path.parent.name, graph.precision] for name, graph in graphs.items()},
        "cpu": [platform.machine(), _processor(), torch.get_num_threads()],
    }

    def build(folder: Path) -> None:
        timed = {name: _milliseconds(encoder, graphs.get(name)) for name in ("torch", *graphs)}
        write_text(folder / "milliseconds.json", json.dumps(timed, indent=2) + "\n")

    folder = store.entry("back_end_times", key, build, version=TIMES)
    timed: dict[str, list[float]] = json.loads((folder / "milliseconds.json").read_text(encoding="utf-8"))
    best = min(timed, key=lambda name: float(np.prod(timed[name])))
    told = ", ".join(f"{name} {query:.1f} and {documents:.0f}" for name, (query, documents) in timed.items())
    log.info("model.backend=auto is %s (ms for a query and for %d documents: %s)", best, TIMED[1][0], told)
    return graphs.get(best)


def _milliseconds(encoder: Encoder, graph: Graph | None) -> list[float]:
    """Return the median milliseconds of a back end for each of the batches of `TIMED`."""
    found = []
    for shape in TIMED:
        compute = partial(_vectors, encoder, graph, *probe_batch(encoder, shape), bf16=encoder.computes_in == "bf16")
        compute()  # the first call warms up
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            compute()
            seconds.append(time.perf_counter() - started)
        found.append(1000 * statistics.median(seconds))
    return found


def probe_batch(encoder: Encoder, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the ids and roles of random texts, of which the last is the shortest."""
    texts, longest = shape[0], min(shape[1], encoder.max_length)
    lengths = np.array([max(1, longest - row) for row in range(texts)])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.random.default_rng(0).integers(0, len(encoder.tokenizer), int(starts[-1]), np.int32)
    roles = None if encoder.single else np.full(len(ids), ATTENDED | SCORED, np.uint8)
    tokens = Tokens(ids, starts, np.zeros(texts, bool), roles)
    return tokens.padded(np.arange(texts), encoder.pad_id, encoder.pads_left)


@torch.inference_mode()
def _vectors(encoder: Encoder, graph: Graph | None, ids: Tensor, roles: Tensor, bf16: bool = False) -> Tensor:
    with _computing_by(encoder, graph):
        found: Tensor = encoder(ids, roles, bf16)
    return found


@contextmanager
def _computing_by(encoder: Encoder, graph: Graph | None) -> Iterator[None]:
    before, encoder.graph = encoder.graph, graph
    try:
        yield
    finally:
        encoder.graph = before


def _processor() -> str:
    """Return the CPU's name."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
