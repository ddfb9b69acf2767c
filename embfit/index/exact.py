"""Exact nearest neighbours by inner product, over a matrix that may be larger than memory."""

from __future__ import annotations

import faiss
import numpy as np

from embfit.index.compressed import Rows
from embfit.index.inner_products import best, inner_products
from embfit.progress import progress

CHUNK = 32_768  # documents searched at once: what a Ctrl-C waits for, and what a conversion to float32 costs in memory
SPARE = 16  # candidates beyond k: enough that ties at the last rank seldom reach further
SCORES = 1 << 24  # scores held at once (64 MiB) for the queries whose ties reach further
ROUNDING = 2.0**-24  # of a float32 sum, for each of its terms and in parts of the two lengths' product
NOTHING = -1


def search(queries: np.ndarray, documents: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each query's k documents of highest inner product, sorted by (-score, row).

    What is returned for a query depends on the vectors alone, and not on the other queries or on where a document
    stands: faiss finds candidates by products of matrices, whose rounding depends on both, and keeps any of several
    that tie. So candidates are scored again pair by pair, and where one that was not fetched could tie with the last,
    by what rounding can do at most, all that could are scored.

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
    queries, lengths = _finite(queries, "queries", 0)
    if not len(queries):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    with progress("searching", total=count, unit="documents") as advance:
        for start in range(0, count, CHUNK):
            chunk, sizes = _finite(documents[start : start + CHUNK], "documents", start)
            # two sums of D products each differ from the true one by D roundings at most (Higham 2002, section 3.1)
            apart = 2 * ROUNDING * queries.shape[1] * lengths * sizes.max()  # [Q]
            found = _add(found, queries, chunk, start, k, apart)
            advance(len(chunk))
    return found


def _finite(vectors: np.ndarray, name: str, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors as faiss reads them, and their lengths: a NaN would be left out of every result."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not np.isfinite(lengths).all() and not (finite := np.isfinite(vectors).all(axis=1)).all():
        row = start + int(np.flatnonzero(~finite)[0])
        raise ValueError(f"row {row} of the {name} is not finite (NaN or infinity)")
    return vectors, lengths


def _add(
    found: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    chunk: np.ndarray,
    start: int,
    k: int,
    apart: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Merge what earlier documents gave ([Q, up to k], sorted) with those that begin at a row.

    Args:
        found: scores and rows.
        queries: [Q, D].
        chunk: [N, D] documents.
        start: row of the first.
        k: documents kept.
        apart: [Q] how far two scores of one pair can be from each other.
    """
    wanted = min(k + SPARE, len(chunk))
    rough, places = faiss.knn(queries, chunk, wanted, metric=faiss.METRIC_INNER_PRODUCT)  # [Q, wanted]
    if found[0].shape[1] == k:
        places[rough < found[0][:, -1:] - apart[:, None]] = NOTHING  # cannot enter: not worth a second score
    merged = _merge(found, inner_products(queries, chunk, places), places, start, k)
    if wanted == len(chunk):
        return merged
    scores, rows = merged
    open_ended = np.flatnonzero(rough.min(axis=1) + apart >= scores[:, -1])
    step = max(1, SCORES // len(chunk))
    for first in range(0, len(open_ended), step):
        some = open_ended[first : first + step]
        for query, full in zip(some, queries[some] @ chunk.T, strict=True):
            one = slice(query, query + 1)
            near = np.flatnonzero(full >= scores[query, -1] - apart[query])[None]  # [1, those that could be among k]
            before = found[0][one], found[1][one]
            scores[one], rows[one] = _merge(before, inner_products(queries[one], chunk, near), near, start, k)
    return scores, rows


def _merge(
    found: tuple[np.ndarray, np.ndarray], scores: np.ndarray, places: np.ndarray, start: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best k of what was found and of a chunk's places, the first of which is row `start`."""
    return best(np.concatenate([found[0], scores], axis=1), np.concatenate([found[1], places + start], axis=1), k)
