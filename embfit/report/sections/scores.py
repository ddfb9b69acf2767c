"""Scores of the relevant documents against those of the best others: what ranks well has them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embfit.evaluator.metrics import answerable
from embfit.records import Evaluation, Qrels
from embfit.report import plots
from embfit.report.drawing import Plot
from embfit.report.subject import Subject

PLACE = 60

BINS = 40  # of a histogram


@dataclass(frozen=True)
class Scores:
    """One system's scores, read from its ranking.

    Args:
        system: its name.
        relevant: of the relevant documents that it ranked.
        others: of each query's best document that is not known to be relevant.
        lost: relevant documents that are not in the ranking.
        first: share of queries whose best relevant document scores above all others.
    """

    system: str
    relevant: np.ndarray
    others: np.ndarray
    lost: int
    first: float


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the scores of the main pair, or of the only system."""
    names = [subject.main.a, subject.main.b] if subject.main else list(subject.systems)[:1]
    if subject.collection is None or not names:
        return None
    found = [
        read_scores(subject.systems[name], subject.collection.qrels[subject.systems[name].split]) for name in names
    ]
    found = [scores for scores in found if len(scores.relevant) and len(scores.others)]
    if not found:
        return None
    return {"title": "Scores", "systems": found, "plots": [_plot(scores, _range(found)) for scores in found]}


def read_scores(evaluation: Evaluation, qrels: Qrels) -> Scores:
    """Part a ranking's scores into those of relevant documents and each query's best other one."""
    relevant, others = [], []
    lost = first = 0
    judged = answerable(qrels)
    for query, grades in judged.items():
        ranked = evaluation.ranking.documents.get(query, ())
        good = [score for document, score in ranked if grades.get(document, 0) >= 1]
        bad = next((score for document, score in ranked if grades.get(document, 0) < 1), None)
        relevant += good
        others += [] if bad is None else [bad]
        lost += sum(grade >= 1 for grade in grades.values()) - len(good)
        first += bool(good) and (bad is None or good[0] > bad)
    return Scores(evaluation.system, np.array(relevant), np.array(others), lost, first / len(judged))


def _range(found: list[Scores]) -> Mapping[str, tuple[float, float]]:
    """Return the ends of each system's axis: one for both where their scores are of one scale (cosines)."""
    ends = {s.system: (min(s.relevant.min(), s.others.min()), max(s.relevant.max(), s.others.max())) for s in found}
    if all(low >= -1.001 and high <= 1.001 for low, high in ends.values()):
        shared = min(low for low, _ in ends.values()), max(high for _, high in ends.values())
        return dict.fromkeys(ends, shared)
    return ends


def _plot(scores: Scores, ends: Mapping[str, tuple[float, float]]) -> Plot:
    caption = f"{scores.system}: {scores.first:.0%} of queries have a relevant document first"
    low, high = ends[scores.system]
    edges = np.linspace(low, high, BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])
    kinds = {"relevant": scores.relevant, "best other": scores.others}
    counts = {name: np.histogram(found, edges)[0] for name, found in kinds.items()}
    medians = {name: float(np.median(found)) for name, found in kinds.items()}
    return Plot(caption, plots.distributions(caption, counts, edges, medians))
