"""The best documents of an index for a query: approximate scores of all candidates, then exact ones of the best few."""

from __future__ import annotations

import numpy as np

from embfit.index.inner_products import ROUNDING, best, best_matches
from embfit.index.protocol import NOTHING, Hits
from embfit.index.rescoring import add_best_of_several, longest_vectors, roundings
from embfit.index.token_vectors.codec import DecodingMemory
from embfit.index.token_vectors.documents import EncodedDocuments
from embfit.progress import progress
from embfit.vectors import LOWEST, Vectors


def best_of_all(
    documents: EncodedDocuments, queries: Vectors[np.ndarray], lengths: np.ndarray, k: int, label: str | None
) -> Hits:
    """Return each query's k best of all documents: scores [Q, k] and rows [Q, k].

    Args:
        documents: the documents to search.
        queries: Q texts.
        lengths: [Q] the length of each query's longest vector.
        k: how many documents to return for each query.
        label: the name that progress is shown under; None shows none.
    """
    if not len(queries):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    with progress(label, total=len(documents.rows), unit="documents") as advance:
        for place, read in documents.chunks():
            tolerance = _rounding_tolerance(documents, queries, lengths, read)
            found = add_best_of_several(found, queries, read, place, k, tolerance)
            advance(len(read))
    scores, places = found
    lacking = scores == LOWEST  # documents without vectors
    return np.where(lacking, np.float32(0), scores), np.where(lacking, NOTHING, documents.rows[places])


def best_among(
    documents: EncodedDocuments, query: Vectors[np.ndarray], lengths: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and rows of one query's best of some documents, at most k.

    Documents are decoded and scored in blocks. Those that could be among the first k, given the rounding, are decoded
    again and scored pair by pair.

    Args:
        documents: the index's documents.
        query: one text.
        lengths: [1] the length of its longest vector.
        rows: the rows of the documents to score, ascending, none of them deleted.
        k: how many documents to return.
    """
    rough, tolerance, memory = np.empty(len(rows), np.float32), 0.0, DecodingMemory()
    query_columns = np.ascontiguousarray(query.flat().T)  # [D, Vq]: BLAS multiplies few columns faster than few rows
    for block in documents.blocks(rows):
        products, block_vectors = documents.products(rows[block], query_columns, memory)
        rough[block] = query.combined(products.T, block_vectors)[0]
        tolerance = max(tolerance, float(_rounding_tolerance(documents, query, lengths, block_vectors)[0]))
    least = np.partition(rough, len(rows) - k)[len(rows) - k] if k < len(rows) else LOWEST
    near = rows[rough >= least - tolerance]
    scores = best_matches(query, documents.decoded(near)).scores
    (scores,), (near,) = best(scores[None], near[None], k)
    found = scores > LOWEST  # documents without vectors are not found
    return scores[found], near[found]


def _rounding_tolerance(
    documents: EncodedDocuments, queries: Vectors[np.ndarray], lengths: np.ndarray, read: Vectors[np.ndarray]
) -> np.ndarray:
    """Return the most by which rounding can separate two scores of one pair ([Q])."""
    longest = documents.codec.longest
    if longest is None:
        longest = float(longest_vectors(read, "documents", 0).max(initial=0))
    found: np.ndarray = 2 * ROUNDING * roundings(queries) * lengths * longest
    return found
