"""Scores of chosen pairs, each the same whatever else is asked for beside it."""

from __future__ import annotations

import numpy as np

from embfit.index.protocol import Hits
from embfit.vectors import LOWEST, Vectors


def pair_scores(queries: Vectors[np.ndarray], documents: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Score chosen documents of each query, pair by pair, as `Vectors.scores` defines it.

    Args:
        queries: Q texts.
        documents: N texts, possibly memory-mapped; only those that are asked for are read.
        rows: [Q, K] of documents; where one is negative, the score is -inf.

    Returns:
        scores [Q, K] float32.
    """
    if not (documents.single and _is_read_in_place(documents)):
        wanted = np.unique(rows[rows >= 0])
        documents, rows = documents.take(wanted), np.where(rows < 0, rows, np.searchsorted(wanted, rows))
    if queries.single and documents.single:
        return inner_products(queries.flat(), documents.flat(), rows)
    scores = np.full(rows.shape, LOWEST, np.float32)
    for query, chosen in enumerate(rows):
        places = np.flatnonzero(chosen >= 0)
        scores[query, places] = _all_scores(queries.part(query, query + 1), documents.take(chosen[places]))
    return scores


def inner_products(queries: np.ndarray, documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Multiply chosen documents with each query, pair by pair.

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
    import faiss  # takes a third of a second to import

    queries, documents = (np.ascontiguousarray(vectors, np.float32) for vectors in (queries, documents))
    rows = np.ascontiguousarray(rows, np.int64)
    scores = np.empty(rows.shape, np.float32)
    if rows.size:
        pointers = map(faiss.swig_ptr, (scores, queries, documents, rows))
        faiss.fvec_inner_products_by_idx(*pointers, queries.shape[1], *rows.shape)  # type: ignore[attr-defined]
    return scores


def best(scores: np.ndarray, rows: np.ndarray, k: int) -> Hits:
    """Return each query's first k by (-score, row), of [Q, K] in any order."""
    order = np.lexsort((rows, -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _is_read_in_place(vectors: Vectors[np.ndarray]) -> bool:
    """Whether faiss reads the vectors where they are; others are converted first."""
    return vectors.dim is None and vectors.rows.dtype == np.float32 and vectors.rows.flags.c_contiguous


def _all_scores(query: Vectors[np.ndarray], documents: Vectors[np.ndarray]) -> np.ndarray:
    """Return one query's scores of all documents ([D])."""
    asked, read = query.flat(), documents.flat()
    pairs = inner_products(asked, read, np.broadcast_to(np.arange(len(read)), (len(asked), len(read))))  # [Vq, Vd]
    scores: np.ndarray = query.combined(pairs, documents)[0]
    return scores
