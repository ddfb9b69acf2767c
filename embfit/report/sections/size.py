"""What indexes cost, and what smaller vectors cost and reach: fewer dimensions or bits, and a reranked shortlist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embfit.report import formatting, plots
from embfit.report.drawing import Plot
from embfit.report.findings import efficient, funnel_overrides, index_costs
from embfit.report.subject import Subject

PLACE = 70


def section(subject: Subject) -> dict[str, Any] | None:
    """Return what indexes cost, each system's settings as a plot, and a table of those that nothing cheaper equals."""
    systems = {name: found.funnel for name, found in subject.systems.items() if found.funnel}
    costs = index_costs(subject.report.evaluations)
    if not (systems or costs):
        return None
    return {
        "title": "Size and speed",
        "costs": costs,
        "plots": [_plot(name, funnel) for name, funnel in systems.items()],
        "tables": [
            (name, funnel, efficient(funnel["settings"]), funnel_overrides(funnel["cheapest"]))
            for name, funnel in systems.items()
        ],
    }


def _plot(name: str, funnel: Mapping[str, Any]) -> Plot:
    cheapest = funnel["cheapest"]
    label = formatting.metric_label(funnel["metric"])
    caption = (
        f"{name}: {label} by bytes of a document in memory; {cheapest['bytes_per_document']:,} bytes keep "
        f"{funnel['kept']:.0%} of the whole vectors' {label}"
    )
    points: dict[str, list[tuple[int, float]]] = {}
    for one in funnel["settings"]:
        way = one["format"] if one["shortlist"] is None else f"{one['format']}, shortlist"
        points.setdefault(way, []).append((one["bytes_per_document"], one["value"]))
    line = funnel["kept"] * funnel["settings"][0]["value"]
    chosen = cheapest["bytes_per_document"], cheapest["value"]
    return Plot(caption, plots.sizes(caption, points, line, chosen))
