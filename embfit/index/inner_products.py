"""Inner products of chosen pairs, each the same whatever else is asked for beside it."""

from __future__ import annotations

import faiss
import numpy as np


def inner_products(queries: np.ndarray, documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Score chosen documents of each query, pair by pair.

    A product of matrices sums in blocks, and rounds by where a row happens to stand in them: copies of one document get
    unequal scores, and others when other queries are asked with them. Here the order of the sum depends on the width
    alone.

    Args:
        queries: [Q, D] floats.
        documents: [N, D] floats.
        rows: [Q, K] of documents; where one is negative, the score is -inf.

    Returns:
        scores [Q, K] float32.
    """
    queries, documents = (np.ascontiguousarray(vectors, np.float32) for vectors in (queries, documents))
    rows = np.ascontiguousarray(rows, np.int64)
    scores = np.empty(rows.shape, np.float32)
    if rows.size:
        pointers = map(faiss.swig_ptr, (scores, queries, documents, rows))
        faiss.fvec_inner_products_by_idx(*pointers, queries.shape[1], *rows.shape)  # type: ignore[attr-defined]
    return scores


def best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each query's first k by (-score, row), of [Q, K] in any order."""
    order = np.lexsort((rows, -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
