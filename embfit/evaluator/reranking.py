"""A ranking whose first documents a cross-encoder puts in another order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embfit.records import Collection, Ranking


def rerank(ranking: Ranking, collection: Collection, top: int, score: Callable[[np.ndarray], np.ndarray]) -> Ranking:
    """Rank each query's first documents by other scores; those after them follow in their order.

    Args:
        ranking: what any system found.
        collection: whose documents it names.
        top: how many documents of each query are scored.
        score: pairs ([P, 2] query and document rows) → scores ([P]); called once, for all queries together.
    """
    pairs = pairs_of(ranking, collection, top)
    scores = iter(score(pairs).tolist())
    scored = {}
    for query, found in ranking.documents.items():
        read = [(document, next(scores)) for document, _ in found[:top]]
        least = min((value for _, value in read), default=0.0)
        scored[query] = read + [(document, least - place) for place, (document, _) in enumerate(found[top:], 1)]
    return Ranking.of(scored)


def pairs_of(ranking: Ranking, collection: Collection, top: int) -> np.ndarray:
    """Return the query and document rows of each query's first documents ([P, 2] int64), query by query."""
    rows = [
        (collection.query_rows[query], collection.document_rows[document])
        for query, found in ranking.documents.items()
        for document, _ in found[:top]
    ]
    return np.array(rows, np.int64).reshape(-1, 2)
