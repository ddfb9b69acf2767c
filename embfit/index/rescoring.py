"""The best documents among many, by rough scores of a matrix product and exact ones of those that could be among them.

What is found for a query depends on the vectors alone: products of matrices round by where a row stands in them, so
every document that rounding could have kept from the first k is scored again, pair by pair.
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


def readable(vectors: Vectors[np.ndarray]) -> Vectors[np.ndarray]:
    """Return the vectors as faiss reads them."""
    return replace(vectors, rows=np.ascontiguousarray(vectors.flat(), np.float32), dim=None)


def read_queries(queries: Vectors[np.ndarray], width: int) -> tuple[Vectors[np.ndarray], np.ndarray]:
    """Return queries as faiss reads them, and the length of each one's longest vector ([Q]).

    Args:
        queries: Q texts.
        width: dimensions of the vectors that they are compared with.

    Raises:
        ValueError: the queries have another width, or one has a vector that is not finite.
    """
    if queries.width != width:
        raise ValueError(f"queries of {queries.width} dimensions and documents of {width} differ in width")
    read = readable(queries)
    return read, longest_vectors(read, "queries", 0)


def longest_vectors(vectors: Vectors[np.ndarray], name: str, start: int) -> np.ndarray:
    """Return the length of each text's longest vector ([N]), having checked that all are finite.

    Args:
        vectors: N texts, as `readable` returns them.
        name: says what they are (`documents`), for the message.
        start: the row of the first text, which the message counts from.

    Raises:
        ValueError: a vector is not finite. A search would leave its text out of every result without a word.
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
    """Return which text is the first that has a NaN or an infinity; None where none has."""
    finite = np.isfinite(vectors.flat()).all(axis=1)
    if finite.all():
        return None
    place = np.flatnonzero(~finite)[0]
    return int(place if vectors.starts is None else np.searchsorted(vectors.starts, place, "right") - 1)


def roundings(queries: Vectors[np.ndarray]) -> np.ndarray | int:
    """Return how many roundings a score of each query has at most.

    Two sums of D products each differ from the true one by D roundings at most (Higham 2002, section 3.1); the mean
    over a query's vectors adds one for each of them and one for the division.
    """
    return queries.width if queries.single else queries.width + queries.counts + 1


def add_best_of_several(
    found: Hits, queries: Vectors[np.ndarray], chunk: Vectors[np.ndarray], start: int, k: int, apart: np.ndarray
) -> Hits:
    """Merge what earlier documents gave ([Q, up to k], sorted) with a chunk, where texts have several vectors.

    Args:
        found: the scores and rows that earlier documents gave.
        queries: Q texts.
        chunk: documents.
        start: the row of the first of them.
        k: how many documents are kept.
        apart: [Q] how far two scores of one pair can be from each other.
    """
    kept = min(k, found[0].shape[1] + len(chunk))
    scores, rows = np.empty((len(queries), kept), np.float32), np.empty((len(queries), kept), np.int64)
    for first, some in queries.chunks(max(1, SCORES // max(1, len(chunk.rows)))):
        rough = some.scores(chunk)  # [q, N]
        wanted = min(k, len(chunk))
        least = np.partition(rough, len(chunk) - wanted, axis=1)[:, len(chunk) - wanted]  # [q]
        for query, full in enumerate(rough):
            one = slice(first + query, first + query + 1)
            lowest = max([least[query], *found[0][first + query, k - 1 : k]])  # what the last of k reaches at least
            near = np.flatnonzero(full >= lowest - apart[one])[None]  # [1, those that could be among k]
            near_scores = pair_scores(some.part(query, query + 1), chunk, near)
            scores[one], rows[one] = merge((found[0][one], found[1][one]), near_scores, near, start, k)
    return scores, rows


def merge(found: Hits, scores: np.ndarray, places: np.ndarray, start: int, k: int) -> Hits:
    """Return the best k of what was found and of a chunk's places, the first of which is row `start`."""
    return best(np.concatenate([found[0], scores], axis=1), np.concatenate([found[1], places + start], axis=1), k)
