"""A closer look: differences by query and by metric, quality by depth of the list and by dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embfit.evaluator.metrics import mean, per_query
from embfit.records import Collection, Evaluation
from embfit.report import formatting, plots
from embfit.report.drawing import Plot
from embfit.report.findings import same_pair
from embfit.report.plots import PlotLine
from embfit.report.subject import Subject

PLACE = 50

DEPTHS = (1, 3, 5, 10, 20, 50, 100)  # of the curves by k


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the plots that this run has something for."""
    drawn = [*_differences(subject), *_by_depth(subject), *_by_dimensions(subject)]
    return {"title": "A closer look", "plots": drawn} if drawn else None


def _differences(subject: Subject) -> Iterator[Plot]:
    main = subject.main
    if main is None:
        return
    before, after = (subject.systems[name].per_query[main.metric] for name in (main.a, main.b))
    label = formatting.metric_label(main.metric)
    caption = (
        f"{label} by query, {main.b} − {main.a}: {main.wins:,} better, {main.ties:,} the same, {main.losses:,} worse"
    )
    yield Plot(caption, plots.gains(caption, [after[query] - before[query] for query in before]))
    rows = [
        found
        for found in subject.report.comparisons
        if same_pair(found, main) and (found.subset == main.subset or found.metric == main.metric)
    ]
    caption = f"{main.b} − {main.a} with 95 % intervals"
    yield Plot(caption, plots.intervals(caption, rows))


def _by_depth(subject: Subject) -> Iterator[Plot]:
    if subject.collection is None or not subject.systems:
        return
    for name in ("ndcg", "recall"):
        lines = [
            PlotLine(system, subject.places[system], _values(name, evaluation, subject.collection))
            for system, evaluation in subject.systems.items()
        ]
        caption = f"{formatting.LABELS[name]} by depth of the list"
        yield Plot(caption, plots.curves(caption, "k, documents read", lines))


def _by_dimensions(subject: Subject) -> Iterator[Plot]:
    cut = [evaluation for evaluation in subject.report.evaluations if evaluation.dims]
    if cut:
        metric = next(iter(cut[0].metrics))
        lines = [
            PlotLine(e.system, subject.places[e.system], {dim: at.metrics[metric] for dim, at in e.dims.items()})
            for e in cut
        ]
        caption = f"{formatting.metric_label(metric)} by dimensions kept"
        yield Plot(caption, plots.curves(caption, "dimensions", lines))


def _values(name: str, evaluation: Evaluation, collection: Collection) -> dict[int, float]:
    """Return a metric at several depths, as far as the ranking goes."""
    deepest = max((len(documents) for documents in evaluation.ranking.documents.values()), default=0)
    depths = [depth for depth in DEPTHS if depth <= deepest]
    values = per_query(evaluation.ranking, collection.qrels[evaluation.split], [f"{name}@{k}" for k in depths])
    return {k: mean(values[f"{name}@{k}"].values()) for k in depths}
