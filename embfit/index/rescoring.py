"""The best of many documents: approximate scores by a matrix product, then exact scores of the possible top k.

A matrix product rounds a row differently by its position. So every document that rounding could have kept out of the
first k is scored again, pair by pair, and a query's hits depend only on the vectors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embfit.index.inner_products import best, pair_scores
from embfit.index.protocol import Hits
from embfit.ragged import owners_of
from embfit.vectors import Vectors

SCORES = 1 << 24  # scores held at once (64 MiB)
NOT_FINITE = "row {} of the {} is not finite (NaN or infinity)"


def contiguous(vectors: Vectors[np.ndarray]) -> Vectors[np.ndarray]:
    """Return the vectors as contiguous float32 rows, which faiss requires."""
    return replace(vectors, rows=np.ascontiguousarray(vectors.flat(), np.float32), dim=None)


def prepare_queries(queries: Vectors[np.ndarray], width: int) -> tuple[Vectors[np.ndarray], np.ndarray]:
    """Return queries as contiguous float32 rows, and the length of each query's longest vector ([Q]).

    Args:
        queries: Q texts.
        width: dimensions of the documents' vectors.

    Raises:
        ValueError: the queries have another width, or one has a vector that is not finite.
    """
    if queries.width != width:
        raise ValueError(f"queries of {queries.width} dimensions and documents of {width} differ in width")
    read = contiguous(queries)
    return read, longest_vectors(read, "queries", 0)


def longest_vectors(vectors: Vectors[np.ndarray], name: str, start: int) -> np.ndarray:
    """Check that all vectors are finite, and return the length of each text's longest one ([N]).

    Args:
        vectors: N texts, as `contiguous` returns them.
        name: what the texts are (`documents`), for the message.
        start: the row of the first text, for the message.

    Raises:
        ValueError: a vector is not finite. A search would silently leave its text out of every result.
    """
    rows = vectors.rows
    lengths: np.ndarray = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    if not np.isfinite(lengths).all() and (place := first_not_finite(vectors)) is not None:
        raise ValueError(NOT_FINITE.format(start + place, name))
    if vectors.starts is None:
        return lengths
    longest = np.zeros(len(vectors), np.float32)
    np.maximum.at(longest, owners_of(vectors.starts), lengths)
    return longest


def first_not_finite(vectors: Vectors[np.ndarray]) -> int | None:
    """Return the place of the first text that has a NaN or an infinity; None if there is none."""
    finite = np.isfinite(vectors.flat()).all(axis=1)
    if finite.all():
        return None
    place = np.flatnonzero(~finite)[0]
    return int(place if vectors.starts is None else np.searchsorted(vectors.starts, place, "right") - 1)


def roundings(queries: Vectors[np.ndarray]) -> np.ndarray | int:
    """Return the most roundings that a score of each query takes.

    Two sums of D products each differ from the true one by D roundings at most (Higham 2002, section 3.1); the mean
    over a query's vectors adds one for each of them and one for the division.
    """
    return queries.width if queries.single else queries.width + queries.counts + 1


def add_best_of_several(
    found: Hits, queries: Vectors[np.ndarray], chunk: Vectors[np.ndarray], start: int, k: int, tolerance: np.ndarray
) -> Hits:
    """Merge the hits of earlier documents ([Q, up to k], sorted) with a chunk, where texts have several vectors.

    Args:
        found: the scores and rows of the earlier hits.
        queries: Q texts.
        chunk: documents.
        start: the row of the first of them.
        k: how many documents are kept.
        tolerance: [Q] the most by which rounding can separate two scores of one pair.
    """
    kept = min(k, found[0].shape[1] + len(chunk))
    scores, rows = np.empty((len(queries), kept), np.float32), np.empty((len(queries), kept), np.int64)
    for first, some in queries.chunks(max(1, SCORES // max(1, len(chunk.rows)))):
        rough = some.scores(chunk)  # [q, N]
        wanted = min(k, len(chunk))
        least = np.partition(rough, len(chunk) - wanted, axis=1)[:, len(chunk) - wanted]  # [q], the k-th highest
        for query, full in enumerate(rough):
            one = slice(first + query, first + query + 1)
            lowest = max([least[query], *found[0][first + query, k - 1 : k]])  # a lower bound of the k-th best score
            near = np.flatnonzero(full >= lowest - tolerance[one])[None]  # [1, possible top-k documents]
            near_scores = pair_scores(some.part(query, query + 1), chunk, near)
            scores[one], rows[one] = merge((found[0][one], found[1][one]), near_scores, near, start, k)
    return scores, rows


def merge(found: Hits, scores: np.ndarray, places: np.ndarray, start: int, k: int) -> Hits:
    """Return the best k of earlier hits and of some places of a chunk, whose place 0 is row `start`."""
    return best(np.concatenate([found[0], scores], axis=1), np.concatenate([found[1], places + start], axis=1), k)
