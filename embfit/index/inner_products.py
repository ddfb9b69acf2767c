"""Scores of chosen pairs, each independent of the other pairs that are scored with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.index.protocol import NOTHING, Hits
from embfit.vectors import LOWEST, Vectors

PAIRS = 1 << 16  # scored in one call
ROUNDING = 2.0**-24  # error of a float32 inner product, for each term, relative to the product of the two lengths


@dataclass(frozen=True, eq=False)
class Matches:
    """The best match of each of a query's vectors in each of N documents.

    Args:
        similarities: [Vq, N] float32, the highest inner product with a vector of the document; -inf if it has none.
        positions: [Vq, N] int64, the position of that vector in the document, the first of equal ones; -1 if it has
            none.
    """

    similarities: np.ndarray
    positions: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The documents' scores, as `Vectors.scores` defines them: [N] float32.

        The sum is taken in the order of the query's vectors, so a document's score does not depend on the others.
        """
        if not len(self.similarities):
            return np.zeros(self.similarities.shape[1], np.float32)
        found: np.ndarray = np.cumsum(self.similarities, axis=0)[-1] / np.float32(len(self.similarities))
        return found


def pair_scores(queries: Vectors[np.ndarray], documents: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Score chosen documents of each query, pair by pair, as `Vectors.scores` defines it.

    Args:
        queries: Q texts.
        documents: N texts, possibly memory-mapped; only the chosen ones are read.
        rows: [Q, K] of documents; the score of a negative row is -inf.

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
        one, chosen_documents = queries.part(query, query + 1), documents.take(chosen[places])
        scores[query, places] = best_matches(one, chosen_documents).scores
    return scores


def inner_products(queries: np.ndarray, documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Multiply chosen documents with each query, pair by pair.

    A matrix product sums in blocks, so its rounding depends on a row's position: copies of one document get unequal
    scores, which change with the other queries of the call. Here the order of summation depends only on the width.

    Args:
        queries: [Q, D] floats.
        documents: [N, D] floats.
        rows: [Q, K] of documents; the score of a negative row is -inf.

    Returns:
        scores [Q, K] float32.
    """
    import faiss  # takes a third of a second to import

    queries, documents = (np.ascontiguousarray(vectors, np.float32) for vectors in (queries, documents))
    rows = np.ascontiguousarray(rows, np.int64)
    scores = np.empty(rows.shape, np.float32)
    if rows.size:
        pointers = map(faiss.swig_ptr, (scores, queries, documents, rows))
        faiss.fvec_inner_products_by_idx(*pointers, queries.shape[1], *rows.shape)  # type: ignore[attr-defined]  # SWIG's
    return scores


def best_matches(query: Vectors[np.ndarray], documents: Vectors[np.ndarray]) -> Matches:
    """Find each query vector's most similar vector in each document.

    A matrix product finds the vectors that could be the most similar, and only those are multiplied again pair by pair
    (`inner_products`). So equal documents get equal similarities, whatever the other documents are.

    Args:
        query: one text of Vq vectors.
        documents: N texts.
    """
    query_rows, document_rows = (np.ascontiguousarray(vectors.flat(), np.float32) for vectors in (query, documents))
    starts = np.arange(len(document_rows) + 1) if documents.starts is None else documents.starts
    similarities = np.full((len(query_rows), len(documents)), LOWEST, np.float32)
    positions = np.full(similarities.shape, NOTHING, np.int64)
    filled = np.flatnonzero(np.diff(starts))  # without empty documents, for which reduceat would return a value
    if not len(filled) or not len(query_rows):
        return Matches(similarities, positions)
    begins, counts = starts[filled], np.diff(starts)[filled]
    longest = np.sqrt(np.einsum("vd,vd->v", document_rows, document_rows).max())
    tolerance = 2 * ROUNDING * query_rows.shape[1] * longest * np.linalg.norm(query_rows, axis=1)  # [Vq]
    products = query_rows @ document_rows.T  # [Vq, Vd]
    highest = np.maximum.reduceat(products, begins, axis=1)  # [Vq, F]
    of, near = np.nonzero(products >= np.repeat(highest - tolerance[:, None], counts, axis=1))  # pairs, by query vector
    again = np.concatenate(
        [
            inner_products(query_rows[of[some]], document_rows, near[some, None])[:, 0]
            for some in (slice(first, first + PAIRS) for first in range(0, len(near), PAIRS))
        ]
    )
    # The query vector and document of each pair, as one number; each number has at least one pair.
    part = of * len(filled) + np.repeat(np.arange(len(filled)), counts)[near - begins[0]]
    first_pairs = np.searchsorted(part, np.arange(highest.size))
    best = np.maximum.reduceat(again, first_pairs)
    winners = np.flatnonzero(again == best[part])
    places = near[winners[np.searchsorted(part[winners], np.arange(highest.size))]]
    similarities[:, filled] = best.reshape(highest.shape)
    positions[:, filled] = places.reshape(highest.shape) - begins
    return Matches(similarities, positions)


def best(scores: np.ndarray, rows: np.ndarray, k: int) -> Hits:
    """Return each query's first k documents by (-score, row), from [Q, K] scores and rows in any order."""
    order = np.lexsort((rows, -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _is_read_in_place(vectors: Vectors[np.ndarray]) -> bool:
    """Return whether faiss can read the vectors without a copy."""
    return vectors.dim is None and vectors.rows.dtype == np.float32 and vectors.rows.flags.c_contiguous
