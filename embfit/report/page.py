"""`report.html`: one file that needs no network, in light and dark, on paper and on a telephone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from embfit import __version__
from embfit.compose.origins import COMMAND_LINE, leaves
from embfit.evaluator.metrics import mean, per_query
from embfit.records import Collection, Comparison, Evaluation, Report
from embfit.report import plots, wording
from embfit.report.contents import subset_metrics
from embfit.report.explorer import explorer
from embfit.report.findings import headline, outcome, pairs, same_pair
from embfit.report.plots import Line
from embfit.report.verdict import verdict

DEPTHS = (1, 3, 5, 10, 20, 50, 100)  # of the curves by k


@dataclass(frozen=True)
class Plot:
    """A figure of the page: what it shows, in words, and the drawing."""

    caption: str
    svg: Markup


def page(
    report: Report,
    config: Mapping[str, Any],
    provenance: Mapping[str, str],
    collection: Collection | None = None,
    command: str = "",
) -> str:
    """Return the page.

    Args:
        report: what was found out.
        config: the resolved configuration.
        provenance: key of each of its leaves → where it was written.
        collection: texts and judgements, for the curves by k and the query explorer, which are left out without it.
        command: what was typed to run it.
    """
    systems = _systems(report)
    environment = Environment(
        loader=PackageLoader("embfit", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {
        "metric": wording.metric_label, "plain": wording.plain, "signed": wording.signed, "count": wording.count,
        "interval": wording.interval, "probability": wording.probability, "duration": wording.duration,
    }  # fmt: skip
    return environment.get_template("template.html").render(
        report=report,
        name=collection.name if collection else report.task,
        documents=len(collection.corpus) if collection else None,
        verdict=verdict(report),
        main=headline(report),
        outcome=outcome,
        places=systems,
        pairs=pairs(report.comparisons),
        subsets=_subsets(report),
        plots=list(_plots(report, systems, collection)),
        training=_training(report, systems),
        explorer=explorer(report, collection) if collection and report.evaluations else None,
        facts={name: _facts(getattr(report, name)) for name in ("training", "mining", "data")},
        config=[(key, json.dumps(value, ensure_ascii=False), provenance.get(key, "")) for key, value in leaves(config)],
        command_line=COMMAND_LINE,
        command=command,
        written=datetime.now().astimezone().strftime("%-d %B %Y, %H:%M"),
        version=__version__,
    )


def _systems(report: Report) -> dict[str, int]:
    """Give each system its place among the colours: first what the run is about, then what it is compared with."""
    main = headline(report)
    names = [main.b, main.a] if main else []
    names += [evaluation.system for evaluation in report.evaluations]
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _subsets(report: Report) -> list[tuple[Comparison, float, float]]:
    """Return the main pair's comparisons in the first metric with both means: all queries, then each subset."""
    main = headline(report)
    if main is None:
        return []
    systems = {evaluation.system: evaluation for evaluation in report.evaluations}
    a, b = systems[main.a], systems[main.b]
    rows = []
    for found in report.comparisons:
        if same_pair(found, main) and found.metric == main.metric:
            before, after = (
                (system.metrics if found.subset == main.subset else subset_metrics(system)[found.subset])[main.metric]
                for system in (a, b)
            )
            rows.append((found, before, after))
    return rows if len(rows) > 1 else []


def _plots(report: Report, systems: Mapping[str, int], collection: Collection | None) -> Iterator[Plot]:
    evaluations, main = report.evaluations, headline(report)
    if main is not None:
        yield from _differences(report, main)
    if collection is not None:
        for name in ("ndcg", "recall"):
            lines = [Line(e.system, systems[e.system], _by_depth(name, e, collection)) for e in evaluations]
            if lines:
                caption = f"{wording.LABELS[name]} by depth of the list"
                yield Plot(caption, Markup(plots.curves(caption, "k, documents read", lines)))
    cut = [evaluation for evaluation in evaluations if evaluation.dims]
    if cut:
        metric = next(iter(cut[0].metrics))
        lines = [
            Line(e.system, systems[e.system], {dim: at.metrics[metric] for dim, at in e.dims.items()}) for e in cut
        ]
        caption = f"{wording.metric_label(metric)} by dimensions kept"
        yield Plot(caption, Markup(plots.curves(caption, "dimensions", lines)))


def _differences(report: Report, main: Comparison) -> Iterator[Plot]:
    systems = {evaluation.system: evaluation for evaluation in report.evaluations}
    before, after = (systems[name].per_query[main.metric] for name in (main.a, main.b))
    label = wording.metric_label(main.metric)
    caption = (
        f"{label} by query, {main.b} − {main.a}: {main.wins:,} better, {main.ties:,} the same, {main.losses:,} worse"
    )
    yield Plot(caption, Markup(plots.gains(caption, [after[query] - before[query] for query in before])))
    rows = [found for found in report.comparisons if same_pair(found, main)]
    caption = f"{main.b} − {main.a} with 95 % intervals"
    yield Plot(caption, Markup(plots.intervals(caption, rows)))


def _by_depth(name: str, evaluation: Evaluation, collection: Collection) -> dict[int, float]:
    deepest = max((len(documents) for documents in evaluation.ranking.documents.values()), default=0)
    depths = [depth for depth in DEPTHS if depth <= deepest]
    values = per_query(evaluation.ranking, collection.qrels[evaluation.split], [f"{name}@{k}" for k in depths])
    return {k: mean(values[f"{name}@{k}"].values()) for k in depths}


def _training(report: Report, systems: Mapping[str, int]) -> Plot | None:
    """Draw the first metric on the dev split by step, where training measured it."""
    history = report.training.get("history", ())
    if len(history) < 2 or not report.evaluations:
        return None
    metric = next(name for name in report.evaluations[0].metrics if name in history[0])
    points = {int(entry["step"]): float(entry[metric]) for entry in history}
    caption = f"{wording.metric_label(metric)} on the dev split by step; the dotted line is the step that was kept"
    line = Line("dev", 0, points)
    return Plot(caption, Markup(plots.curves(caption, "steps", [line], report.training.get("best_step"))))


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a room counted as lines of name and value; curves are drawn instead."""
    flat = leaves({name: value for name, value in facts.items() if name not in ("history", "curve")})
    return [(key.replace("_", " ").replace(".", ", "), _shown(value)) for key, value in flat]


def _shown(value: Any) -> str:
    """Write a value as a person reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return "none"  # leaves() goes into all others
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)
