"""Mining beside sentence-transformers' `mine_hard_negatives`: same weights, corpus and limits.

Each run is a process of its own, and the systems alternate, so that neither gets the warmer machine. Wall time begins
when data and model are loaded and is split into encoding, search, and the rest (a cross-encoder's scores, limits,
choice, writing the data set). With a cross-encoder no negative scores above the lowest positive, in logits.
Runs append to the result file with the commit of the code (`+` where files differ from it); the table shows medians of
all that one commit made.

    python scripts/benchmarks/mining.py medquad-small=DIR --runs 3
    python scripts/benchmarks/mining.py medquad=DIR --runs 3 --precision auto --peer-dtype bfloat16
    python scripts/benchmarks/mining.py medquad=DIR --runs 3 --backend openvino --precision int8 --peer-dtype bfloat16
    python scripts/benchmarks/mining.py medquad-small=DIR --runs 3 --depth 30 --queries 128 --cross-encoder FOLDER
    python scripts/benchmarks/mining.py --table
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measuring import read
from minilm import MODEL, compute_in_int8

from embfit.data import Beir
from embfit.miner import CrossEncoderMiner, DenseMiner
from embfit.miner.candidates import CandidateSource
from embfit.miner.examples import SPLIT
from embfit.miner.miner import RankedMiner
from embfit.model import Encoder
from embfit.model.location import find_model
from embfit.model.precision import uses_bf16
from embfit.records import Collection
from embfit.store import Store

OURS, PEER = "embfit", "sentence-transformers"
INT8 = "int8"
CALIBRATED = 128  # documents that int8 is calibrated on
KILOBYTE, GIGABYTE = 1024, 1e9
CASE = (
    "collection",
    "queries",
    "documents",
    "negatives",
    "margin",
    "depth",
    "backend",
    "precision",
    "peer_dtype",
    "cross_encoder",
    "threads",
)
STAGES = ("encode", "search", "rest", "total")


def main() -> None:
    """Run both systems in turn, then print the table; with --system, run that one here."""
    arguments = _arguments()
    out = Path(arguments.out)
    if arguments.system:
        folder = arguments.collections[0].partition("=")[2]
        print(json.dumps(_run(arguments.system, folder, arguments)))
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    commit = _commit()
    for named in arguments.collections if not arguments.table else ():
        for number in range(arguments.runs):
            for system in (OURS, PEER) if number % 2 == 0 else (PEER, OURS):
                case = {"collection": named.partition("=")[0], "commit": commit}
                result = {**case, "system": system, **_settings(arguments)}
                result |= _in_a_process(named, system, arguments.threads)
                with out.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(result["collection"], system, f"{result['total']:.1f} s", flush=True)
    print(table(list(read(out))))


def _commit() -> str:
    """Return the commit of this script's repository; runs of different code are not to be thrown together."""
    found = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(found, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    precision = arguments.precision
    if precision != INT8:
        precision = "bf16" if uses_bf16(precision, torch.device("cpu")) else "fp32"
    return {**{name: getattr(arguments, name) for name in CASE[1:]}, "precision": precision}


def _in_a_process(named: str, system: str, threads: int) -> dict[str, Any]:
    """Run one system in a fresh process and return what it measured."""
    options = [argument for argument in sys.argv[1:] if "=" not in argument or argument.startswith("--")]
    command = [sys.executable, __file__, named, *options, "--system", system]
    limits = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=limits)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(system: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    store = Store(arguments.store)
    collection = _part(Beir(path=folder, dev_share=0, test_share=0).load(store), arguments)
    mine = _mine_ours if system == OURS else _mine_peers
    seconds, negatives = mine(collection, arguments)
    return {
        **seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE / GIGABYTE,
        "negatives_of": negatives,
    }


def _part(collection: Collection, arguments: argparse.Namespace) -> Collection:
    """Return the training split alone, with the first queries and documents if fewer are asked for."""
    train = dict(sorted(collection.qrels[SPLIT].items())[: arguments.queries or None])
    judged = {collection.document_rows[document] for documents in train.values() for document in documents}
    others = (row for row in range(len(collection.corpus)) if row not in judged)
    wanted = arguments.documents or len(collection.corpus)
    kept = sorted({*judged, *(row for row, _ in zip(others, range(wanted - len(judged)), strict=False))})
    return replace(collection, corpus=collection.corpus.select(kept), qrels={SPLIT: train})


@dataclass(frozen=True)
class Timed(DenseMiner):
    """Dense mining that notes the seconds of its stages."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("encode", "search"), 0.0))

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return the source with its stages timed: what is prepared is encoded, and what is proposed is searched."""
        source = super().source(collection, encoder, store)
        prepare = self._timed(source.prepare, "encode")
        return replace(source, prepare=lambda examples: self._timed(prepare(examples), "search"))

    def _timed(self, call: Callable[[Any], Any], stage: str) -> Callable[[Any], Any]:
        def timed(argument: Any) -> Any:
            started = time.monotonic()
            try:
                return call(argument)
            finally:
                self.seconds[stage] += time.monotonic() - started

        return timed


def _mine_ours(
    collection: Collection, arguments: argparse.Namespace
) -> tuple[dict[str, float], Mapping[str, list[str]]]:
    encoder = _encoder(collection, arguments)
    dense = Timed(negatives=arguments.negatives, depth=arguments.depth, relative_margin=arguments.margin)
    miner: RankedMiner = dense
    if arguments.cross_encoder:
        miner = CrossEncoderMiner(
            arguments.negatives,
            depth=arguments.depth,
            candidates=dense,
            model=arguments.cross_encoder,
            precision=arguments.precision,
        )
    with TemporaryDirectory() as scratch:
        started = time.monotonic()
        rows = miner.mine(collection, encoder, Store(scratch)).rows[:]
        total = time.monotonic() - started
    texts = list(collection.document_texts())
    found = zip(rows["query"], rows["negatives"], strict=True)
    negatives = {collection.query_ids[query]: sorted(texts[row] for row in mined) for query, mined in found}
    return _stages(dense.seconds["encode"], dense.seconds["search"], total), negatives


def _encoder(collection: Collection, arguments: argparse.Namespace) -> Encoder:
    """Load the encoder, converted to its back end; with int8, calibrated on the first documents."""
    store = Store(arguments.store)
    if arguments.precision != INT8:
        return replace(MODEL, backend=arguments.backend, precision=arguments.precision).load("cpu", store=store)
    encoder = MODEL.load("cpu")
    texts = list(collection.document_texts(range(min(CALIBRATED, len(collection.corpus)))))
    compute_in_int8(encoder, texts, arguments.backend, store)
    return encoder


def _mine_peers(
    collection: Collection, arguments: argparse.Namespace
) -> tuple[dict[str, float], Mapping[str, list[str]]]:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder as PeersCrossEncoder
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    folder = find_model(str(MODEL.path), MODEL.revision, MODEL.packages)
    weights = {"dtype": arguments.peer_dtype}
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=weights)
    model.max_seq_length = MODEL.max_length
    limits: dict[str, Any] = {"relative_margin": arguments.margin}
    if arguments.cross_encoder:
        ranker = PeersCrossEncoder(arguments.cross_encoder, device="cpu", model_kwargs=weights)
        limits = {"absolute_margin": 0.0, "cross_encoder": ranker}
    texts = list(collection.document_texts())
    queries = dict(zip(collection.query_ids, collection.query_texts(), strict=True))
    judged = collection.qrels[SPLIT]
    pairs = [
        (queries[query], texts[collection.document_rows[document]])
        for query, documents in judged.items()
        for document, grade in documents.items()
        if grade >= 1
    ]
    most = max(sum(grade >= 1 for grade in documents.values()) for documents in judged.values())
    dataset = Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [text for _, text in pairs]})
    marks: dict[str, float] = {}
    for name in ("encode_document", "encode_query", "similarity_pairwise"):
        _mark(model, name, marks)
    started = time.monotonic()
    mined = mine_hard_negatives(
        dataset,
        model,
        corpus=texts,
        num_negatives=arguments.negatives,
        range_max=arguments.depth - most,  # it looks at as many more as a query has positives
        output_format="triplet",
        verbose=False,
        **limits,
    )
    rows = mined[:]
    total = time.monotonic() - started
    encode = marks["encode_query end"] - started
    search = marks["similarity_pairwise begin"] - marks["encode_query end"]
    by_query: dict[str, set[str]] = defaultdict(set)
    for query, negative in zip(rows["query"], rows["negative"], strict=True):
        by_query[query].add(negative)
    return _stages(encode, search, total), {query: sorted(by_query[queries[query]]) for query in judged}


def _stages(encode: float, search: float, total: float) -> dict[str, float]:
    return {"encode": encode, "search": search, "rest": total - encode - search, "total": total}


def _mark(model: Any, name: str, marks: dict[str, float]) -> None:
    """Note when a method of the peer's model is called and when it returns, the last time."""
    call = getattr(model, name)

    def marked(*arguments: Any, **named: Any) -> Any:
        marks[f"{name} begin"] = time.monotonic()
        try:
            return call(*arguments, **named)
        finally:
            marks[f"{name} end"] = time.monotonic()

    setattr(model, name, marked)


def table(results: list[dict[str, Any]]) -> str:
    """Return medians of seconds and gigabytes by collection and system, and how far the candidates are the same."""
    lines = [
        "| collection | commit | system | runs | encode s | search s | rest s | total s | peak GB | same negatives |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for result in results:
        case = (result["commit"], *(result.get(name) for name in CASE))
        groups.setdefault(case, {}).setdefault(result["system"], []).append(result)
    for group, systems in groups.items():
        commit, case = group[0], group[1:]
        for system, runs in systems.items():
            figures = [f"{median(run[stage] for run in runs):.2f}" for stage in STAGES]
            peak = f"{median(run['peak_gb'] for run in runs):.2f}"
            same = agreement(runs[0]["negatives_of"], systems[OURS][0]["negatives_of"]) if OURS in systems else ""
            backend, precision, peer_dtype, cross_encoder, threads = case[6:]
            kind = f"{backend or 'torch'}, {precision}" if system == OURS else peer_dtype
            name = f"{case[0]}{f', {case[1]} queries' if case[1] else ''}{f', {case[2]} documents' if case[2] else ''}"
            name += ", cross-encoder" if cross_encoder else ""
            name += f", threads: {threads}" if threads else ""
            cells = [name, commit, f"{system} ({kind})", str(len(runs)), *figures, peak, same]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement(one: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> str:
    """Say for how many queries two systems have the same negatives."""
    same = sum(one.get(query, []) == other[query] for query in other)
    return f"{same:,} of {len(other):,} queries"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="*", help="NAME=BEIR_FOLDER, whose split train is mined for")
    parser.add_argument("--runs", type=int, default=3, help="of each system")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--margin", type=float, default=0.05, help="relative")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--backend", choices=("torch", "onnx", "openvino"), default="torch", help="of embfit")
    parser.add_argument("--precision", default="fp32", help="of embfit: fp32, bf16, auto or int8")
    parser.add_argument("--peer-dtype", default="float32", help="of the peer's weights: float32 or bfloat16")
    parser.add_argument("--cross-encoder", help="folder of a ranker, which looks at what the vectors find")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--queries", type=int, default=0, help="training queries; 0 for all")
    parser.add_argument("--documents", type=int, default=0, help="size of the corpus, at least the judged ones; 0: all")
    parser.add_argument("--store", default="outputs/store", help="of the parsed collection; mining has an empty one")
    parser.add_argument("--out", default="outputs/benchmarks/mining.jsonl")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--system", choices=(OURS, PEER), help="run this one in this process")
    logging.basicConfig(level=logging.WARNING)
    return parser.parse_args()


if __name__ == "__main__":
    main()
