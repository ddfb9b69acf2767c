"""Rerank a ranking's first documents by other scores, such as a cross-encoder's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embfit.records import Collection, Ranking


def rerank(ranking: Ranking, collection: Collection, top: int, score: Callable[[np.ndarray], np.ndarray]) -> Ranking:
    """Rank each query's first documents by other scores; the later ones follow in their order.

    Args:
        ranking: what any system found.
        collection: has its queries and documents.
        top: how many documents of each query are scored.
        score: pairs ([P, 2] query and document rows) → scores ([P]); called once, for all queries together.
    """
    pairs = pairs_of(ranking, collection, top)
    scores = iter(score(pairs).tolist())
    scored = {}
    for query, found in ranking.documents.items():
        first = [(document, next(scores)) for document, _ in found[:top]]
        least = min((value for _, value in first), default=0.0)
        scored[query] = first + [(document, least - place) for place, (document, _) in enumerate(found[top:], 1)]
    return Ranking.of(scored)


def pairs_of(ranking: Ranking, collection: Collection, top: int) -> np.ndarray:
    """Return the query and document rows of each query's first documents ([P, 2] int64), query by query."""
    rows = [
        (collection.query_rows[query], collection.document_rows[document])
        for query, found in ranking.documents.items()
        for document, _ in found[:top]
    ]
    return np.array(rows, np.int64).reshape(-1, 2)
