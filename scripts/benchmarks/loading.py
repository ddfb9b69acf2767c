"""How long a large BEIR folder takes to load, and how much memory: first from its files, then from the store.

Then what is held of each document to name it and to know its copies, and what finding those takes at most.

Each load is a process of its own, so that peak memory is its own. The folder is synthetic: random words.

    python scripts/benchmarks/loading.py --documents 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embfit.records import Collection

WORDS = 60  # of a document
VOCABULARY = 20_000
QUERIES = 1_000


def main() -> None:
    """Write the folder, load it twice, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--load", nargs=2, metavar=("FOLDER", "STORE"), help="load once in this process")
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load(*arguments.load)))
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "collection"
        write(folder, arguments.documents)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{arguments.documents:,} documents, {size / 1e6:,.0f} MB of JSONL")
        for name in ("from the files", "from the store"):
            command = [sys.executable, __file__, "--load", str(folder), str(Path(scratch) / "store")]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{name}: {found['seconds']:.1f} s, peak memory {found['peak_mb']:,.0f} MB")
        print(f"bytes for each document: {found['held']:.0f} held, {found['at_most']:.0f} at most")


def write(folder: Path, documents: int) -> None:
    """Write a BEIR folder of random words; each query's relevant document is one of them."""
    draw = np.random.default_rng(0)
    words = np.array([f"w{number:05d}" for number in range(VOCABULARY)])
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            text = " ".join(draw.choice(words, WORDS))
            file.write(json.dumps({"_id": f"d{number}", "title": text[:20], "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w") as file, (folder / "qrels" / "test.tsv").open("w") as qrels:
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(QUERIES):
            file.write(json.dumps({"_id": f"q{number}", "text": " ".join(draw.choice(words, 8))}) + "\n")
            qrels.write(f"q{number}\td{draw.integers(documents)}\t1\n")


def load(folder: str, store: str) -> dict[str, float]:
    """Load a folder, and return the seconds it took and the process's peak memory."""
    from embfit.data import Beir
    from embfit.store import Store

    started = time.monotonic()
    collection = Beir(path=folder).load(Store(store))
    next(collection.document_texts([len(collection.corpus) - 1]))  # a text that nobody has read yet
    return {
        "seconds": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,  # kilobytes on Linux
        **bytes_for_each(collection),
    }


def bytes_for_each(collection: Collection) -> dict[str, float]:
    """Return what ids, rows and copies take in Python's and Arrow's memory, divided by the documents."""
    import pyarrow as pa

    pool = pa.default_memory_pool()
    documents, before = len(collection.corpus), pool.max_memory()
    tracemalloc.start()
    kept = (collection.document_rows, collection.document_copies)
    held, most = tracemalloc.get_traced_memory()
    in_arrow = max(0, pool.max_memory() - before)
    assert all(len(one) == documents for one in kept)
    return {"held": held / documents, "at_most": (most + in_arrow) / documents}


if __name__ == "__main__":
    main()
