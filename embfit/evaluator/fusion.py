"""Several rankings of the same queries made into one."""

from __future__ import annotations

from collections.abc import Sequence

from embfit.records import Ranking


def reciprocal_ranks(rankings: Sequence[Ranking], weights: Sequence[float], k: int, depth: int) -> Ranking:
    """Score each document by the sum of weight / (k + rank) over the rankings that have it (Cormack et al. 2009).

    Only ranks count, so scores of different kinds (cosines, BM25) need no common scale.

    Args:
        rankings: several rankings of the same queries.
        weights: each ranking's weight.
        k: the larger, the more slowly a document's credit decreases with its rank; the paper's 60 rarely needs tuning.
        depth: how many documents are kept for each query.
    """

    def credits(documents: Sequence[tuple[str, float]]) -> dict[str, float]:
        return {document: 1 / (k + place) for place, (document, _) in enumerate(documents, 1)}

    return _summed([{q: credits(found) for q, found in one.documents.items()} for one in rankings], weights, depth)


def weighted_scores(rankings: Sequence[Ranking], weights: Sequence[float], depth: int) -> Ranking:
    """Score each document by the weighted sum of its scores, each list first scaled to the range from 0 to 1.

    The lowest score of a query's list becomes 0 and the highest 1 (Lee 1997), so a document that is missing from a list
    counts as its last one. In a list of equal scores each document gets 1.

    Args:
        rankings: several rankings of the same queries.
        weights: each ranking's weight.
        depth: how many documents are kept for each query.
    """

    def scaled(documents: Sequence[tuple[str, float]]) -> dict[str, float]:
        if not documents:
            return {}
        high, low = documents[0][1], documents[-1][1]
        return {document: (score - low) / (high - low) if high > low else 1.0 for document, score in documents}

    return _summed([{q: scaled(found) for q, found in one.documents.items()} for one in rankings], weights, depth)


def _summed(scored: Sequence[dict[str, dict[str, float]]], weights: Sequence[float], depth: int) -> Ranking:
    totals: dict[str, dict[str, float]] = {}
    for queries, weight in zip(scored, weights, strict=True):
        for query, documents in queries.items():
            total = totals.setdefault(query, {})
            for document, score in documents.items():
                total[document] = total.get(document, 0.0) + weight * score
    return Ranking.of({query: total.items() for query, total in totals.items()}, depth)
