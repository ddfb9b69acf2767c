"""Documents that nobody judged: metrics count them as not relevant, though some of them are relevant.

If judgements were pooled from other systems, a new system finds relevant documents that nobody judged, and each lowers
its metrics. Condensed lists (Sakai 2007) remove unjudged documents before measuring: a second, more lenient figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from embfit.evaluator.metrics import answerable, mean, per_query
from embfit.records import Qrels, Ranking

TOP = 10


def count_unjudged(ranking: Ranking, qrels: Qrels) -> dict[str, int]:
    """Return how many of each answerable query's first ten documents have no judgement."""
    return {
        query: sum(document not in grades for document, _ in ranking.documents.get(query, ())[:TOP])
        for query, grades in answerable(qrels).items()
    }


def condensed(ranking: Ranking, qrels: Qrels) -> Ranking:
    """Return the ranking without documents that nobody judged."""
    return Ranking(
        {
            query: [(document, score) for document, score in documents if document in qrels.get(query, {})]
            for query, documents in ranking.documents.items()
        }
    )


def condensed_metrics(ranking: Ranking, qrels: Qrels, metrics: Sequence[str]) -> dict[str, float]:
    """Return the metrics of the condensed ranking: metric → mean over the answerable queries."""
    values = per_query(condensed(ranking, qrels), qrels, metrics)
    return {metric: mean(by_query.values()) for metric, by_query in values.items()}
