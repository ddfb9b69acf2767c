"""Documents that say nearly the same as a positive: a copy with another date, a page under two addresses.

A text is represented by the set of its sequences of four words. The similarity of two texts is the Jaccard similarity
of their sets, as in `embfit.data.similarity`, which finds near copies in a corpus.
"""

from __future__ import annotations

import numpy as np

from embfit.data.similarity import shingles
from embfit.ragged import Ragged
from embfit.records import Collection

QUERIES = 64  # queries whose documents are held in memory as sets at once


def dissimilar(
    rows: np.ndarray, passed: np.ndarray, positives: Ragged, collection: Collection, similarity: float
) -> np.ndarray:
    """Pass documents whose similarity to every positive of their query is below a limit.

    Args:
        rows: [Q, K], the candidates' document rows.
        passed: [Q, K], true for the candidates to decide on; all others pass.
        positives: the document rows of each query's positives.
        collection: the collection with the texts.
        similarity: the Jaccard similarity, above 0 and up to 1, from which on a document does not pass.
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
