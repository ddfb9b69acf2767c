"""Documents that say nearly the same as a positive: a copy with another date, a page under two addresses.

A text is the set of its sequences of four words, and two texts are as alike as the Jaccard similarity of their sets
(`embfit.data.similarity`, which finds near copies in a corpus the same way).
"""

from __future__ import annotations

import numpy as np

from embfit.data.similarity import shingles
from embfit.ragged import Ragged
from embfit.records import Collection

QUERIES = 64  # whose documents are in memory as sets at once


def unlike(
    rows: np.ndarray, passed: np.ndarray, positives: Ragged, collection: Collection, similarity: float
) -> np.ndarray:
    """Pass documents that are less similar than `similarity` to each positive of their query.

    Args:
        rows: [Q, K] document rows.
        passed: [Q, K], the candidates still to be decided; the others pass.
        positives: document rows by query.
        collection: has the texts.
        similarity: Jaccard similarity, above 0 and up to 1.
    """
    passes = np.ones(rows.shape, bool)
    for start in range(0, len(rows), QUERIES):
        some = slice(start, start + QUERIES)
        owners, places = np.nonzero(passed[some])
        relevant = positives.part(start, min(start + QUERIES, len(rows)))
        wanted = np.unique(np.concatenate([rows[some][owners, places], relevant.values]))
        texts = collection.document_texts(wanted.tolist())
        sets = dict(zip(wanted.tolist(), map(shingles, texts), strict=True))
        own = [[sets[row] for row in one.tolist()] for one in relevant.lists()]
        for owner, place in zip(owners.tolist(), places.tolist(), strict=True):
            candidate = sets[int(rows[start + owner, place])]
            passes[start + owner, place] = all(_jaccard(candidate, positive) < similarity for positive in own[owner])
    return passes


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
