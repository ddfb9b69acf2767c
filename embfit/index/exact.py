"""Exact nearest neighbours by inner product, over a matrix that may be larger than memory."""

from __future__ import annotations

import faiss
import numpy as np

from embfit.index.compressed import Rows
from embfit.progress import progress

CHUNK = 32_768  # documents searched at once: what a Ctrl-C waits for, and what a conversion to float32 costs in memory
TIED_SCORES = 1 << 24  # scores held at once (64 MiB) for the queries whose last rank is tied


def search(queries: np.ndarray, documents: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each query's k documents of highest inner product, sorted by (-score, row).

    The rows returned are a function of the scores alone: faiss keeps any of several documents that are tied at the last
    rank, so those queries are ranked again in full.

    Args:
        queries: [Q, D] floats.
        documents: [N, D] floats, possibly memory-mapped, or a `Cut` of them; read once, in chunks, whatever the
            number of queries.
        k: documents per query, at most N.

    Returns:
        scores [Q, k] float32 and rows [Q, k] int64.

    Raises:
        ValueError: k is not between 1 and N, the widths differ, or a vector is not finite.
    """
    count = len(documents)
    if not 1 <= k <= count:
        raise ValueError(f"k={k} is not between 1 and the index's {count} documents")
    if queries.shape[1:] != documents.shape[1:]:
        raise ValueError(f"queries of shape {queries.shape} and documents of shape {documents.shape} differ in width")
    queries = _finite(queries, "queries", 0)
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    with progress("searching", total=count, unit="documents") as advance:
        for start in range(0, count, CHUNK):
            chunk = _finite(documents[start : start + CHUNK], "documents", start)
            chunk_scores, chunk_rows = _search_chunk(queries, chunk, min(k, len(chunk)))
            scores, rows = _merge((scores, rows), (chunk_scores, chunk_rows + start), k)
            advance(len(chunk))
    return scores, rows


def _finite(vectors: np.ndarray, name: str, start: int) -> np.ndarray:
    """Return the vectors as faiss reads them: a NaN would be left out of every result without a word."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        row = start + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"row {row} of the {name} is not finite (NaN or infinity)")
    return vectors


def _search_chunk(queries: np.ndarray, chunk: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if not len(queries):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    wanted = min(k + 1, len(chunk))  # the one beyond the last tells whether the last rank is tied
    scores, rows = faiss.knn(queries, chunk, wanted, metric=faiss.METRIC_INNER_PRODUCT)  # [Q, wanted]
    order = np.lexsort((rows, -scores))
    scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    if wanted > k:
        tied = np.flatnonzero(scores[:, k - 1] == scores[:, k])
        scores, rows = scores[:, :k], rows[:, :k]
        step = max(1, TIED_SCORES // len(chunk))
        for start in range(0, len(tied), step):
            some = tied[start : start + step]
            full = queries[some] @ chunk.T  # [some, N]
            best = np.argsort(-full, axis=1, kind="stable")[:, :k]
            scores[some], rows[some] = np.take_along_axis(full, best, axis=1), best
    return scores, rows


def _merge(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the results of earlier documents with those of later ones: a stable sort leaves tied rows in order."""
    scores, rows = (np.concatenate(pair, axis=1) for pair in zip(first, second, strict=True))  # [Q, up to 2k]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
