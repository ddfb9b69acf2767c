"""What the choices of the group `index` find, and how long one query takes, as the documents grow in number.

Documents are unit vectors around centres, and each query lies near a document, as questions lie near their answers.
Recall is the share of the exact search's first ten documents. Every query is searched alone, on one thread; times are
processor time of the search, without encoding, so that other work on the machine counts little. All dimensions of these
vectors matter alike, unlike those of models that were trained with `loss=mrl`: a funnel of few dimensions misses more.

    OMP_NUM_THREADS=1 python scripts/benchmarks/bundle_index.py
    OMP_NUM_THREADS=1 python scripts/benchmarks/bundle_index.py --documents 1000000 --indexes exact hnsw ivf
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from measuring import unit

from embfit.index import (
    ApproximateBuilder,
    AutoBuilder,
    ExactBuilder,
    FunnelBuilder,
    IndexBuilder,
    IndexInput,
    load_index,
)
from embfit.records import Embeddings
from embfit.vectors import Vectors

BUILDERS: Mapping[str, IndexBuilder] = {
    "auto": AutoBuilder(),
    "exact": ExactBuilder(),
    "int8": ApproximateBuilder("int8"),
    "bf16": ApproximateBuilder("bf16"),
    "funnel": FunnelBuilder(64, "int8"),
    "funnel-binary": FunnelBuilder(384, "binary"),
    "hnsw": ApproximateBuilder("hnsw"),
    "ivf": ApproximateBuilder("ivf"),
}
CHUNK = 16_384
FIRST = 10


def main() -> None:
    """Build, save, open and search each index; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 250_000, 300_000])
    parser.add_argument("--indexes", nargs="+", choices=[*BUILDERS], default=["exact", "int8", "bf16", "hnsw", "ivf"])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--centres", type=int, default=2_000)
    parser.add_argument("--noise", type=float, default=0.6, help="length of what a document has beside its centre")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where files go for as long as it runs")
    parser.add_argument("--out", help="file for the lines, as JSON")
    arguments = parser.parse_args()
    lines = []
    for count in arguments.documents:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            documents, queries = _vectors(folder / "documents.npy", count, arguments)
            exact: list[list[int]] | None = None
            for kind in dict.fromkeys(["exact", *arguments.indexes]):
                line, rows = _measure(folder / kind, kind, documents, queries)
                exact = rows if exact is None else exact
                found = [len({*ours} & {*theirs}) / FIRST for ours, theirs in zip(rows, exact, strict=True)]
                lines.append({"documents": count, **line, "recall": float(np.mean(found))})
                print(
                    "  ".join(
                        f"{key} {value:,.3f}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in lines[-1].items()
                    ),
                    flush=True,
                )
    if arguments.out:
        Path(arguments.out).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _measure(
    folder: Path, kind: str, documents: Vectors[np.ndarray], queries: Vectors[np.ndarray]
) -> tuple[dict[str, object], list[list[int]]]:
    folder.mkdir()
    started = time.process_time()
    BUILDERS[kind].write(IndexInput(Embeddings(documents, "synthetic")), folder)
    built = time.process_time() - started
    index = load_index(folder)
    rows, milliseconds = [], []
    for query in (0, *range(len(queries))):  # the first query twice: it reads the files
        started = time.process_time()
        _, found = index.search(queries.part(query, query + 1), FIRST)
        milliseconds.append(1000 * (time.process_time() - started))
        rows.append(found[0].tolist())
    files = sum(path.stat().st_size for path in folder.iterdir() if path.name != "vectors.npy" or kind == "exact")
    line = {
        "index": kind,
        "build_seconds": built,
        "p50_ms": statistics.median(milliseconds[1:]),
        "p95_ms": float(np.percentile(milliseconds[1:], 95)),
        "searched_mb": files / 1e6,
    }
    return line, rows[1:]


def _vectors(path: Path, count: int, arguments: argparse.Namespace) -> tuple[Vectors[np.ndarray], Vectors[np.ndarray]]:
    """Return documents, in a file that is mapped, and queries."""
    random = np.random.default_rng(arguments.seed)
    centres = unit(random.normal(size=(arguments.centres, arguments.dim)))
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, (count, arguments.dim))

    def around(vectors: np.ndarray, noise: float) -> np.ndarray:
        return unit(vectors + noise * unit(random.normal(size=vectors.shape)))

    for start in range(0, count, CHUNK):
        part = matrix[start : start + CHUNK]
        part[:] = around(centres[random.integers(0, len(centres), len(part))], arguments.noise)
    matrix.flush()
    near = np.sort(random.choice(count, arguments.queries, replace=False))
    return Vectors(np.load(path, mmap_mode="r")), Vectors(around(matrix[near], 0.5).astype(np.float32))


if __name__ == "__main__":
    main()
