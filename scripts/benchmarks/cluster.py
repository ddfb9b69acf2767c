"""What a Ray cluster costs and gains: encoding, scoring and exact search, on this machine alone and by its workers.

Each measurement is a process of its own, and the systems alternate. `one machine` is cluster=null; `N workers` is
cluster=ray with N workers of one thread each, started on this machine. The start of Ray and of its workers is counted
beside the work, and the first worker has started when the clock does. All systems must give the same bytes: the script
fails where they do not.

    python scripts/benchmarks/cluster.py --data DIR --documents 500,2000,10000 --rounds 3
    python scripts/benchmarks/cluster.py --data DIR --documents 64 --rounds 1 --workers 1

The share of Ray is what one worker takes longer than this machine alone, by what it takes. The network between machines
is not in it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from minilm import MODEL

WORKS = ("encoding", "scoring", "search")
SPREAD_FROM = {
    "embfit.model.embed": "SHARED_FROM",
    "embfit.model.scoring": "SPREAD_FROM",
    "embfit.index.exact": "SPREAD_FROM",
}
CANDIDATES = 10  # pairs scored of a query
DEPTH = 100  # documents found of a query
LONGEST = 128  # tokens read of a text


@dataclass(frozen=True)
class System:
    """Where work is done.

    Args:
        workers: of Ray; 0 is this machine alone.
    """

    workers: int

    @property
    def name(self) -> str:
        """How a table names it."""
        return f"{self.workers} worker{'s' * (self.workers > 1)}" if self.workers else "one machine"


def main() -> None:
    """Measure each size by each system, and print a table."""
    arguments = _arguments()
    if arguments.one is not None:
        print(json.dumps(_measure(System(arguments.one), arguments)))
        return
    workers = [int(number) for number in arguments.workers.split(",")]
    if workers[0] != 1:
        raise SystemExit(f"--workers {arguments.workers}: the share of Ray is that of one worker; begin with 1")
    systems = [System(number) for number in (0, *workers)]
    print(f"{arguments.queries} queries, MiniLM, {LONGEST} tokens, rounds: {arguments.rounds}; medians in seconds\n")
    print(_line(("documents", "work", *(system.name for system in systems), "share of Ray", "same bytes")))
    print(_line(["---"] * (len(systems) + 4)))
    for documents in map(int, arguments.documents.split(",")):
        found = _alternated(systems, documents, arguments)
        for work in WORKS:
            digests = {run[work]["digest"] for runs in found.values() for run in runs}
            seconds = [statistics.median(run[work]["seconds"] for run in found[system]) for system in systems]
            share = 1 - seconds[0] / seconds[1]
            cells = (f"{documents:,}", work, *(f"{one:.2f}" for one in seconds), f"{share:.0%}")
            print(_line((*cells, "yes" if len(digests) == 1 else "NO")), flush=True)
            if len(digests) > 1:
                raise SystemExit(f"{work} of {documents} documents: the systems give different bytes")
        starts = [statistics.median(run["start"] for run in found[system]) for system in systems]
        print(_line((f"{documents:,}", "start of Ray", *(f"{one:.2f}" for one in starts), "", "")), flush=True)


def _alternated(
    systems: Sequence[System], documents: int, arguments: argparse.Namespace
) -> Mapping[System, list[dict[str, Any]]]:
    """Measure all systems in turns, each second round backwards."""
    found: dict[System, list[dict[str, Any]]] = {system: [] for system in systems}
    for number in range(arguments.rounds):
        for system in systems if number % 2 == 0 else reversed(systems):
            own = ["--one", str(system.workers), "--documents", str(documents), "--data", str(arguments.data)]
            own += ["--queries", str(arguments.queries)]
            done = subprocess.run([sys.executable, __file__, *own], stdout=subprocess.PIPE, check=True, text=True)
            found[system].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def _measure(system: System, arguments: argparse.Namespace) -> dict[str, Any]:
    """Do all works in this process, which joins a cluster where the system has one."""
    import torch

    from embfit.cluster import RayCluster
    from embfit.index import open_index
    from embfit.model import CrossEncoder, embed
    from embfit.model.loading import Weights
    from embfit.model.scoring import score_pairs
    from embfit.records import Embeddings
    from embfit.store import Store
    from embfit.vectors import Vectors

    torch.set_num_threads(1)  # as a worker has
    for module, name in SPREAD_FROM.items():  # however little it is
        setattr(import_module(module), name, 1)
    collection = _collection(arguments.data, int(arguments.documents), arguments.queries)
    encoder = MODEL.load("cpu")
    weights = Weights(str(MODEL.path), packages=MODEL.packages)
    ranker = CrossEncoder.load_weights(weights, max_length=LONGEST, device="cpu", fresh_head=0)
    none = Store(enabled=False)
    numbers = np.arange(len(collection.queries) * CANDIDATES)
    pairs = np.stack([numbers // CANDIDATES, numbers % len(collection.corpus)], axis=1)
    started = time.monotonic()
    with ExitStack() as joined:
        if system.workers:
            joined.enter_context(RayCluster(workers=system.workers, object_store_gb=0.5).joined())
        found: dict[str, Any] = {"start": time.monotonic() - started}
        queries = encoder.embed(collection.query_texts(), "query")
        vectors = _timed(found, "encoding", lambda: [embed(encoder, collection, "document", none).vectors.flat()])[0]
        _timed(found, "scoring", lambda: [score_pairs(ranker, collection, pairs, none)])
        index = open_index(Embeddings(Vectors(vectors), "benchmark"), "exact", none)
        _timed(found, "search", lambda: index.search(queries, min(DEPTH, len(vectors))))
    return found


def _timed(found: dict[str, Any], work: str, do: Callable[[], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
    """Do a work, note its seconds and what identifies its results, and return those."""
    before = time.monotonic()
    arrays = [np.ascontiguousarray(array) for array in do()]
    seconds = time.monotonic() - before
    found[work] = {"seconds": seconds, "digest": hashlib.sha256(b"".join(one.tobytes() for one in arrays)).hexdigest()}
    return arrays


def _collection(data: Path, documents: int, queries: int) -> Any:
    """Return a collection of so many texts: the data's, and beyond those the same with a number in front."""
    from embfit.data import Beir
    from embfit.records import Collection
    from embfit.store import Store

    whole = Beir(path=str(data)).load(Store(enabled=False))

    def texts(own: Sequence[str], number: int) -> Iterator[str]:
        return islice((f"{turn} {text}" if turn else text for turn in count() for text in own), number)

    corpus = list(texts(list(whole.document_texts()), documents))
    asked = list(texts(list(whole.query_texts()), queries))
    return Collection(
        "benchmark",
        Dataset.from_dict({"_id": [f"d{row}" for row in range(documents)], "title": [""] * documents, "text": corpus}),
        Dataset.from_dict({"_id": [f"q{row}" for row in range(queries)], "text": asked}),
        {},
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in the BEIR layout")
    parser.add_argument("--documents", default="500,2000,10000", help="sizes of the corpus")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--workers", default="1,2", help="numbers of workers to measure, 1 first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
