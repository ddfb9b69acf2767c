"""How fast a corpus is encoded: embfit by each back end beside sentence-transformers, and what its vectors find.

Every system gets the same texts, tokenisation included, in rounds that alternate; the table has medians. nDCG@10 is
that of exact search over its vectors, judged by one evaluator, so it needs the whole corpus; with --documents the first
ones are timed and nothing is judged. Conversion is not timed: it is done once for a model.

    OMP_NUM_THREADS=2 python scripts/benchmarks/encode.py scifact=DIR --rounds 3
    OMP_NUM_THREADS=2 python scripts/benchmarks/encode.py scifact=DIR --documents 300 --rounds 3

Systems: `sentence-transformers` (its defaults: fp32, batches of 32), `sentence-transformers bf16` (weights in bf16),
`embfit torch`, `embfit onnx`, `embfit openvino` and `embfit auto`, each in the precision that it chooses here; and
`embfit onnx int8` and `embfit openvino int8`, which compute one graph in static int8, calibrated on the first
documents.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from measuring import unit
from minilm import MODEL, compute_in_int8

from embfit.data import Beir
from embfit.evaluator import Retrieval
from embfit.index import ExactIndex
from embfit.store import Store
from embfit.vectors import Vectors

if TYPE_CHECKING:
    from embfit.evaluator.systems import EvaluationContext

PEER, PEER_BF16 = "sentence-transformers", "sentence-transformers bf16"
OURS = ("embfit torch", "embfit onnx", "embfit openvino", "embfit auto")
INT8 = ("embfit onnx int8", "embfit openvino int8")
METRIC = "ndcg@10"
WARM = 32  # texts encoded before the clock runs
CALIBRATED = 128  # documents that int8 is calibrated on

Kind: TypeAlias = Literal["query", "document"]
Encode: TypeAlias = Callable[[Sequence[str], Kind], np.ndarray]


@dataclass(frozen=True)
class Timed:
    """What was measured of a system.

    Args:
        seconds: of each round.
        facts: back end and precision.
        ndcg: nDCG@10; None where a part of the corpus was encoded.
        distance: largest 1 - cosine from the first system's vectors.
    """

    seconds: Sequence[float]
    facts: str
    ndcg: float | None
    distance: float


def main() -> None:
    """Measure, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", metavar="NAME=DIR", help="a BEIR folder")
    parser.add_argument("--documents", type=int, help="time that many, and judge nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default=",".join((PEER, PEER_BF16, *OURS, *INT8)))
    parser.add_argument("--store", default="outputs/store")
    arguments = parser.parse_args()
    name, folder = arguments.collection.split("=", 1)
    store = Store(arguments.store)
    collection = Beir(path=folder).load(store)
    texts = list(collection.document_texts())[: arguments.documents]
    context = None if arguments.documents else Retrieval(bm25=False).context(collection, store, MODEL)
    systems = {system: _system(system, store, texts[:CALIBRATED]) for system in arguments.systems.split(",")}
    found = measure({system: encode for system, (encode, _) in systems.items()}, texts, arguments.rounds, context)
    timed = {system: replace(one, facts=systems[system][1]) for system, one in found.items()}
    print(f"{name}: {len(texts):,} documents, {torch.get_num_threads()} threads, {arguments.rounds} rounds\n")
    print(table(timed, len(texts)))


def measure(
    systems: Mapping[str, Encode], texts: Sequence[str], rounds: int, context: EvaluationContext | None
) -> dict[str, Timed]:
    """Encode the texts by every system in each round, and judge the vectors of the last one."""
    seconds: dict[str, list[float]] = {system: [] for system in systems}
    vectors: dict[str, np.ndarray] = {}
    for encode in systems.values():
        encode(texts[:WARM], "document")
    for number in range(rounds):
        order = list(systems) if number % 2 == 0 else list(systems)[::-1]
        for system in order:
            started = time.perf_counter()
            vectors[system] = systems[system](texts, "document")
            seconds[system].append(time.perf_counter() - started)
            print(f"round {number + 1}: {system} {seconds[system][-1]:.1f} s", flush=True)
    first = unit(vectors[next(iter(systems))])
    return {
        system: Timed(
            seconds[system],
            "",
            None if context is None else _ndcg(system, systems[system], vectors[system], context),
            float((1 - np.einsum("nd,nd->n", unit(vectors[system]), first)).max()),
        )
        for system in systems
    }


def table(timed: Mapping[str, Timed], documents: int) -> str:
    """Return the table, in Markdown."""
    medians = {system: statistics.median(one.seconds) for system, one in timed.items()}
    lines = [
        f"| system | computes in | documents/s | times {PEER} | times {PEER_BF16} | nDCG@10 | largest 1 - cosine |",
        "|---|---|---|---|---|---|---|",
    ]
    for system, one in timed.items():
        ratios = [f"{medians[peer] / medians[system]:.2f}" if peer in medians else "" for peer in (PEER, PEER_BF16)]
        ndcg = "" if one.ndcg is None else f"{one.ndcg:.4f}"
        rate = f"{documents / medians[system]:.1f}"
        lines.append(f"| {system} | {one.facts} | {rate} | {' | '.join(ratios)} | {ndcg} | {one.distance:.1e} |")
    return "\n".join(lines)


def _system(system: str, store: Store, calibration: Sequence[str]) -> tuple[Encode, str]:
    """Return what encodes texts, and what it computes in."""
    if system in INT8:
        back_end: Any = system.split()[1]
        encoder = replace(MODEL, backend="onnx", precision="fp32").load("cpu", store=store)
        compute_in_int8(encoder, calibration, back_end, store)
        return encoder.encode, f"{back_end} int8"
    if system in OURS:
        backend: Any = system.removeprefix("embfit ")
        encoder = replace(MODEL, backend=backend).load("cpu", store=store)
        return encoder.encode, f"{encoder.back_end} {encoder.computes_in}"
    if system not in (PEER, PEER_BF16):
        raise SystemExit(f"--systems: {system!r} is none of {', '.join((PEER, PEER_BF16, *OURS, *INT8))}")
    from sentence_transformers import SentenceTransformer

    weights = {"dtype": torch.bfloat16 if system == PEER_BF16 else torch.float32}
    model = SentenceTransformer(str(Path(MODEL.load("cpu").source)), device="cpu", model_kwargs=weights)
    model.max_seq_length = MODEL.max_length

    def encode(texts: Sequence[str], kind: Kind) -> np.ndarray:
        found: np.ndarray = model.encode(list(texts), show_progress_bar=False, convert_to_tensor=True).float().numpy()
        return found

    return encode, "torch bf16" if system == PEER_BF16 else "torch fp32"


def _ndcg(system: str, encode: Encode, documents: np.ndarray, context: EvaluationContext) -> float:
    """Return the nDCG@10 of exact search over a system's vectors."""
    queries = Vectors(unit(encode(list(context.collection.query_texts(context.rows)), "query")))
    hits = context.search.nearest(queries, ExactIndex(Vectors(unit(documents)), system))
    return float(context.judge(system, context.search.ranking(context.rows, hits)).metrics[METRIC])


if __name__ == "__main__":
    main()
