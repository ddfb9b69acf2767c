"""How exact search grows with the corpus: seconds and memory at 10,000, 100,000 and 1,000,000 documents.

Vectors are drawn at random and lie in a file, which is mapped and not loaded. Each line is a process of its own that
searches the file and reports the most memory that it held itself (anonymous memory: pages of the file that the system
caches, and gives back at need, are not counted) beyond what it held before the search.

    python scripts/benchmarks/search_scale.py
    python scripts/benchmarks/search_scale.py --documents 1000000 --queries 1000 --dim 768 --forms float32,int8
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import AnonymousMemory, unit

from embfit.index import CompressedIndex, ExactIndex, VectorIndex
from embfit.vectors import Vectors

FORMS = ("float32", "cut", "int8", "binary")
CHUNK = 16_384
ALONE = 50  # queries that are also searched one by one


def main() -> None:
    """Run each line, print the table and write the lines."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_measure(Path(arguments.child), arguments)))
        return
    lines = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for count in arguments.documents:
            path = Path(folder, f"{count}.npy")
            _make(path, count, arguments.dim, arguments.seed)
            for form in arguments.forms.split(","):
                lines.append(_child(path, form, arguments))
                print(_row(lines[-1]), flush=True)
            path.unlink()
    if arguments.out:
        Path(arguments.out).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--cut", type=int, default=64, help="dimensions that `cut` searches")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--forms", default=",".join(FORMS), help="which of: " + ", ".join(FORMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where the files of vectors go for as long as it runs")
    parser.add_argument("--out", help="file for the lines, as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _child(path: Path, form: str, arguments: argparse.Namespace) -> dict[str, object]:
    settings = {name: getattr(arguments, name) for name in ("queries", "dim", "cut", "k", "seed")}
    command = [sys.executable, __file__, "--child", str(path), "--forms", form]
    command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    line: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return line


def _measure(path: Path, arguments: argparse.Namespace) -> dict[str, object]:
    documents = Vectors(np.load(path, mmap_mode="r"))
    queries = Vectors(unit(np.random.default_rng(arguments.seed + 1).normal(size=(arguments.queries, arguments.dim))))
    if arguments.forms == "cut":
        documents, queries = documents.cut(arguments.cut), queries.cut(arguments.cut)
    k = min(arguments.k, len(documents))
    with AnonymousMemory() as memory:
        started = time.perf_counter()
        index = _index(arguments.forms, documents)
        built = time.perf_counter()
        _, rows = index.search(queries, k)
        searched = time.perf_counter()
    alone = []
    for query in range(min(ALONE, len(queries))):
        started_alone = time.perf_counter()
        index.search(queries.part(query, query + 1), k)
        alone.append(1000 * (time.perf_counter() - started_alone))
    return {
        "documents": len(documents),
        "queries": arguments.queries,
        "dim": arguments.dim,
        "form": arguments.forms,
        "k": k,
        "build_seconds": round(built - started, 3),
        "search_seconds": round(searched - built, 3),
        "milliseconds_per_query": 1000 * (searched - built) / arguments.queries,
        "milliseconds_alone": statistics.median(alone),
        "memory_mb": (memory.most - memory.before) / 1e6,
        "checksum": int(rows.sum()),
    }


def _index(form: str, documents: Vectors[np.ndarray]) -> VectorIndex:
    if form == "int8":
        return CompressedIndex.build(documents, "int8")
    return CompressedIndex.build(documents, "binary") if form == "binary" else ExactIndex(documents)


def _make(path: Path, count: int, dim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, (count, dim))
    for start in range(0, count, CHUNK):
        part = matrix[start : start + CHUNK]
        part[:] = unit(random.normal(size=part.shape))
    matrix.flush()


def _row(line: dict[str, object]) -> str:
    names: Sequence[str] = (
        "documents",
        "form",
        "build_seconds",
        "search_seconds",
        "milliseconds_per_query",
        "milliseconds_alone",
        "memory_mb",
    )
    shown = (f"{name} {line[name]:,.2f}" if isinstance(line[name], float) else f"{name} {line[name]}" for name in names)
    return "  ".join(shown)


if __name__ == "__main__":
    main()
