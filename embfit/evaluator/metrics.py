"""Retrieval metrics for each query, computed by pytrec_eval from a ranking whose ties are already broken.

Libraries break ties differently: MRR@10 of one tied ranking is 1 in one and 1/2 in another. trec_eval's C code also
keeps scores as float32, in which different Python scores may tie. So documents are ranked once, by (-score, id), and
pytrec_eval gets whole numbers that decrease from rank to rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pytrec_eval

from embfit.errors import ConfigError
from embfit.records import Qrels, Ranking

VALIDATION_METRIC = "ndcg@10"  # what training monitors on the dev split, whatever metrics are reported
MEASURES = {
    "ndcg": "ndcg_cut",
    "mrr": "recip_rank",
    "recall": "recall",
    "precision": "P",
    "map": "map_cut",
    "success": "success",
}


@dataclass(frozen=True)
class Metric:
    """A metric and its cutoff, the last rank that counts: `ndcg@10`."""

    name: str
    cutoff: int

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read `NAME@K`.

        Raises:
            ConfigError: the metric does not exist, or its cutoff is below 1.
        """
        match = re.fullmatch(r"([a-z]+)@([1-9]\d*)", text)
        if match is None or match[1] not in MEASURES:
            known = ", ".join(f"{name}@K" for name in MEASURES)
            raise ConfigError(f"evaluator.metrics: {text!r} is not a metric; choose {known}, where K is 1 or more")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.name}@{self.cutoff}"

    @property
    def measure(self) -> str:
        """The name of the measure in pytrec_eval, whose reciprocal rank has no cutoff."""
        return MEASURES[self.name] if self.name == "mrr" else f"{MEASURES[self.name]}.{self.cutoff}"

    def value(self, measured: Mapping[str, float]) -> float:
        """Return this metric from the values that pytrec_eval computed for one query."""
        if self.name == "mrr":
            reciprocal = measured["recip_rank"]
            return reciprocal if reciprocal >= 1 / self.cutoff else 0.0  # both are 1.0 / rank, so this is exact
        return measured[f"{MEASURES[self.name]}_{self.cutoff}"]


def answerable(qrels: Qrels) -> dict[str, Mapping[str, int]]:
    """Return the judgements of the queries that have a relevant document (grade 1 or more).

    No ranking can answer the others, so the metrics leave them out.
    """
    return {query: grades for query, grades in qrels.items() if any(grade >= 1 for grade in grades.values())}


def per_query(ranking: Ranking, qrels: Qrels, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Measure each answerable query; one that is missing from the ranking scores 0.

    With `g(i)` the grade at rank i (0 where unjudged), relevant meaning a grade of 1 or more and R the number of
    relevant documents, whether retrieved or not:

    - `ndcg@k`: sum over i ≤ k of g(i) / log2(i + 1), divided by the same sum for the best order of all judged documents
      (Järvelin and Kekäläinen 2002, with linear gain as in trec_eval);
    - `mrr@k`: 1 / rank of the first relevant document, 0 if that rank is beyond k;
    - `recall@k`: relevant documents among the first k, divided by R;
    - `precision@k`: relevant documents among the first k, divided by k, however short the ranking;
    - `success@k`: 1 if a relevant document is among the first k, else 0; its mean is the hit rate;
    - `map@k`: sum of precision@i over the ranks i ≤ k of relevant documents, divided by R.

    Args:
        ranking: ordered by (-score, id).
        qrels: judgements of one split.
        metrics: names, such as `ndcg@10`.

    Returns:
        Metric name → query id → value in 0 to 1, the queries in the order of `qrels`.

    Raises:
        ConfigError: a metric does not exist.
    """
    parsed = [Metric.parse(name) for name in metrics]
    judged = answerable(qrels)
    scores = {query: _decreasing_scores(ranking.documents.get(query, ())) for query in judged}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {metric.measure for metric in parsed})
    measured = evaluator.evaluate(scores)
    return {str(metric): {query: metric.value(measured[query]) for query in judged} for metric in parsed}


def mean(values: Iterable[float]) -> float:
    """Return the mean over queries, all with the same weight.

    Raises:
        ZeroDivisionError: there are no queries.
    """
    listed = list(values)
    return sum(listed) / len(listed)


def _decreasing_scores(documents: Sequence[tuple[str, float]]) -> dict[str, float]:
    return {document: float(len(documents) - place) for place, (document, _) in enumerate(documents)}
