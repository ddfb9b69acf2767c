"""The result in the terminal: systems by metrics, differences with their uncertainty, and what they say.

Names and sentences are `Text`, since rich takes brackets in a plain string for its own markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embfit.records import Evaluation, Report
from embfit.report.decision import decide
from embfit.report.findings import efficient, evidence, funnel_overrides, headline, index_costs, pairs, same_pair
from embfit.report.formatting import count, interval, metric_label, plain, probability, signed
from embfit.report.production import production_sentences, production_table
from embfit.report.verdict import verdict


def print_table(report: Report, console: Console | None = None) -> None:
    """Print a report's metrics, comparisons and verdict; nothing where no system was evaluated.

    Args:
        report: what was found out.
        console: where to; the standard output by default.
    """
    if not report.evaluations:
        return
    console = console or Console()
    first = report.evaluations[0]
    console.print(Text(f"{first.split}: {count(first.facts['queries'], 'query', 'queries')}"))
    console.print(_systems(report))
    for line in _subsets(report):
        console.print(Text(line))
    if any(evaluation.dims for evaluation in report.evaluations):
        console.print(Text(f"{metric_label(next(iter(first.metrics)))} by dimensions"))
        console.print(_dims(report.evaluations))
    for evaluation in report.evaluations:
        if evaluation.funnel:
            label = metric_label(evaluation.funnel["metric"])
            kept = f"{evaluation.funnel['kept']:.0%}"
            said = f"{evaluation.system}: {label} by bytes in memory (the cheapest that keeps {kept} is marked)"
            console.print(Text(said))
            console.print(_funnel(evaluation.funnel))
            if overrides := funnel_overrides(evaluation.funnel["cheapest"]):
                said = f"To serve the cheapest: embfit index {overrides} bundle.name=NAME …"
                console.print(Text(said), soft_wrap=True)  # one line, to be copied
    if costs := index_costs(report.evaluations):
        console.print(Text("What an index takes: bytes, and milliseconds for a document or a query on this machine"))
        console.print(_costs(costs))
    for sentence in verdict(report):
        console.print(Text(sentence))
    if section := report.sections.get("production"):
        console.print(production_table(section))
        for sentence in production_sentences(section):
            console.print(Text(sentence))
    if decision := decide(report):
        console.print(Text(str(decision), style="bold"))


def _systems(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for metric in report.evaluations[0].metrics:
        table.add_column(metric_label(metric), justify="right")
    for evaluation in report.evaluations:
        table.add_row(Text(evaluation.system), *map(plain, evaluation.metrics.values()))
    for comparisons in pairs(report.comparisons):
        table.add_section()
        pair = Text(f"{comparisons[0].b} − {comparisons[0].a}")
        table.add_row(pair, *(signed(found.difference) for found in comparisons))
        table.add_row("95 % interval", *(interval(found.ci95, 3, "…") for found in comparisons))
        table.add_row("p", *(probability(found.p) for found in comparisons))
        if corrected := [found.p_holm for found in comparisons if found.p_holm is not None]:
            table.add_row("p, corrected", *map(probability, corrected))
    return table


def _subsets(report: Report) -> Iterator[str]:
    main = headline(report)
    for found in report.comparisons:
        if main and same_pair(found, main) and found.metric == main.metric and found.subset != main.subset:
            yield (
                f"{found.subset} ({count(found.queries, 'query', 'queries')}): "
                f"{metric_label(found.metric)} {signed(found.difference)} "
                f"({interval(found.ci95, 3)}, {evidence(found, report.comparisons)})"
            )


def _dims(evaluations: Sequence[Evaluation]) -> Table:
    metric = next(iter(evaluations[0].metrics))
    cut = [evaluation for evaluation in evaluations if evaluation.dims]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    for evaluation in cut:
        table.add_column(Text(evaluation.system), justify="right")
    for dim in sorted({dim for evaluation in cut for dim in evaluation.dims}):
        values = (plain(e.dims[dim].metrics[metric]) if dim in e.dims else "" for e in cut)
        table.add_row(str(dim), *values)
    return table


def _costs(costs: Mapping[str, Mapping[str, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in next(iter(costs.values())):
        table.add_column(heading, justify="right")
    for system, values in costs.items():
        table.add_row(Text(system), *values.values())
    return table


def _funnel(funnel: Mapping[str, Any]) -> Table:
    """List the settings that nothing cheaper equals, most bytes first."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("dims", "format", "shortlist", "bytes", "value", "of whole", "ms", ""):
        table.add_column(heading, justify="right")
    for found in efficient(funnel["settings"]):
        table.add_row(
            str(found["dims"]),
            found["format"],
            "" if found["shortlist"] is None else f"{found['shortlist']:,}",
            f"{found['bytes_per_document']:,}",
            plain(found["value"]),
            f"{found['share']:.1%}",
            f"{found['milliseconds']:.2f}",
            "*" if found == funnel["cheapest"] else "",
        )
    return table
