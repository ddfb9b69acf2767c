"""How training went: loss, in-batch accuracy, learning rate, and quality on the dev split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.report import formatting, plots
from embfit.report.drawing import Plot
from embfit.report.facts import fact_rows
from embfit.report.sections.cost import MEASURED
from embfit.report.subject import Subject

PLACE = 90

DRAWN = ("history", "curve", "dev_change")
CURVES = {
    "loss": "Loss",
    "accuracy": "Accuracy in the batch: positives above all their negatives",
    "lr": "Learning rate",
}


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the curves and what else training recorded; what it cost is shown among the costs."""
    facts = subject.report.training
    if not facts:
        return None
    return {
        "title": "Training",
        "plots": [*_dev(subject), *_curves(facts)],
        "rows": fact_rows(facts, (*DRAWN, *MEASURED)),
    }


def _dev(subject: Subject) -> Iterator[Plot]:
    """Draw quality on the dev split by step: the first metric of the report that training measured, else nDCG@10."""
    history = subject.report.training.get("history", ())
    if len(history) < 2 or not subject.report.evaluations:
        return
    measured = (name for name in subject.report.evaluations[0].metrics if name in history[0])
    metric = next(measured, VALIDATION_METRIC)  # a query adapter's validation measures that one alone
    caption = f"{formatting.metric_label(metric)} on the dev split; the dotted line is the step that was kept"
    if change := subject.report.training.get("dev_change"):
        caption += (
            f", {formatting.signed(change['difference'], 3)} nDCG@10 against before training "
            f"({formatting.certainty(change['bounds'], 3)}, {formatting.count(change['queries'], 'query', 'queries')})"
        )
    points = {int(entry["step"]): float(entry[metric]) for entry in history}
    yield Plot(caption, plots.series(caption, points, mark=subject.report.training.get("kept_step"), dots=True))


def _curves(facts: Mapping[str, Any]) -> Iterator[Plot]:
    curve = facts.get("curve", ())
    if len(curve) < 2:
        return
    for name, caption in CURVES.items():
        points = {int(entry["step"]): float(entry[name]) for entry in curve}
        yield Plot(caption, plots.series(caption, points, mark=facts.get("kept_step")))
