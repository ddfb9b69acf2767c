"""How mining grows with the corpus: seconds and peak memory over synthetic vectors, from ten thousand to a million.

Vectors lie in clusters, as a model's do, and are written to a file before the clock starts; each size is mined for in a
process of its own. `exact` and `ivf` are measured. Memory is what the process itself holds (anonymous pages, sampled);
pages of the file that the system keeps mapped are beside it, since it may take them back.

    python scripts/benchmarks/mining_scale.py --sizes 10000,100000,1000000 --queries 10000
    python scripts/benchmarks/mining_scale.py --sizes 2000 --queries 200
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from measuring import AnonymousMemory, unit

from embfit.index import open_index
from embfit.index.approximate import Method
from embfit.miner import DenseMiner
from embfit.miner.candidates import Candidates, CandidateSource, Propose
from embfit.miner.examples import TrainingQueries
from embfit.model import Encoder
from embfit.records import Collection, Embeddings
from embfit.store import Store
from embfit.vectors import Vectors

CENTRES = 5000
CHUNK = 65_536
NAMES = ("queries", "documents")
GIGABYTE = 1e9


def main() -> None:
    """Measure each size and method, and print a table."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_mine(Path(arguments.one), arguments.method, arguments.depth)))
        return
    print(f"{arguments.queries:,} queries, {arguments.width} dimensions, depth {arguments.depth}\n")
    print("| documents | search | index s | search s | choice and files s | total s | peak memory GB | vectors GB |")
    print("|---|---|---|---|---|---|---|---|")
    for size in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            _write(Path(scratch), size, arguments.queries, arguments.width)
            for method in arguments.methods.split(","):
                found = _in_a_process(scratch, method, arguments.depth)
                rest = found["total"] - found["index"] - found["search"]
                cells = [f"{size:,}", method, *(f"{found[name]:.1f}" for name in ("index", "search"))]
                cells += [f"{rest:.1f}", f"{found['total']:.1f}", f"{found['peak_gb']:.2f}"]
                print(f"| {' | '.join(cells)} | {size * arguments.width * 4 / GIGABYTE:.2f} |", flush=True)


def _write(folder: Path, documents: int, queries: int, width: int) -> None:
    """Write clustered unit vectors; query i lies near document i, which answers it."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CENTRES, width), np.float32)
    matrix = np.lib.format.open_memmap(folder / "documents.npy", "w+", np.float32, (documents, width))
    for start in range(0, documents, CHUNK):
        count = min(CHUNK, documents - start)
        matrix[start : start + count] = unit(
            centres[random.integers(0, CENTRES, count)] + 0.7 * random.standard_normal((count, width), np.float32)
        )
    near = matrix[: min(queries, documents)] + 0.03 * random.standard_normal(
        (min(queries, documents), width), np.float32
    )
    np.save(folder / "queries.npy", unit(near))
    matrix.flush()


def _in_a_process(folder: str, method: str, depth: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", folder, "--method", method, "--depth", str(depth)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass(frozen=True)
class Given(DenseMiner):
    """Dense mining over the vectors of a folder, which notes the seconds of its stages."""

    folder: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: {"index": 0.0, "search": 0.0})

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return the source; nothing is encoded."""
        queries, documents = (Vectors(np.load(Path(self.folder) / f"{name}.npy", mmap_mode="r")) for name in NAMES)

        def prepare(examples: TrainingQueries) -> Propose:
            started = time.monotonic()
            index = open_index(Embeddings(documents, self.folder), self.search, store)
            self.seconds["index"] = time.monotonic() - started

            def propose(part: TrainingQueries) -> Candidates:
                before = time.monotonic()
                found = self._nearest(part, queries.take(part.queries), index)
                self.seconds["search"] += time.monotonic() - before
                return found

            return propose

        return CandidateSource("dense", {"folder": self.folder, "search": self.search}, prepare)


def _mine(folder: Path, method: Method, depth: int) -> dict[str, Any]:
    """Mine over the vectors of a folder, with texts that are numbers."""
    queries, documents = (len(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in NAMES)
    corpus = Dataset.from_generator(
        lambda: ({"_id": f"d{row}", "title": "", "text": f"document {row}"} for row in range(documents)),
        cache_dir=str(folder / "corpus"),
    )
    asked = Dataset.from_dict(
        {"_id": [f"q{row}" for row in range(queries)], "text": [str(row) for row in range(queries)]}
    )
    judged = {f"q{row}": {f"d{row}": 1} for row in range(queries)}
    collection = Collection("synthetic", corpus, asked, {"train": judged})
    miner = Given(negatives=4, depth=depth, search=method, folder=str(folder))
    with AnonymousMemory() as memory, tempfile.TemporaryDirectory(dir=folder) as store:
        started = time.monotonic()
        miner.mine(collection, None, Store(store))  # type: ignore[arg-type]  # no encoder: vectors are there
        total = time.monotonic() - started
    return {**miner.seconds, "total": total, "peak_gb": memory.most / GIGABYTE}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="documents, separated by commas")
    parser.add_argument("--queries", type=int, default=10_000, help="at most one a document")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--methods", default="exact,ivf", help="exact, ivf and hnsw, separated by commas")
    parser.add_argument("--scratch", default=None, help="folder on a disk with room for the vectors")
    parser.add_argument("--one", help="mine over the vectors of this folder, in this process")
    parser.add_argument("--method", default="exact")
    logging.basicConfig(level=logging.WARNING)
    return parser.parse_args()


if __name__ == "__main__":
    main()
