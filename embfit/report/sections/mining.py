"""What mining found, what it left out, how far negatives score below positives, and some of them to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embfit.report import plots
from embfit.report.drawing import Plot
from embfit.report.facts import fact_rows
from embfit.report.subject import Subject

PLACE = 100

DRAWN = ("scores", "by_source", "removed", "examples", "false_negatives")


@dataclass(frozen=True)
class TableLine:
    """A line of a table: a name, a count and its share of the whole (0 to 1)."""

    name: str
    count: int
    share: float


def section(subject: Subject) -> dict[str, Any] | None:
    """Return what mining counted, its histograms, and its examples."""
    facts = subject.report.mining
    if not facts:
        return None
    return {
        "title": "Mining",
        "rows": fact_rows(facts, drawn=DRAWN),
        "sources": _lines({name: one["negatives"] for name, one in facts.get("by_source", {}).items()}),
        "removed": _lines(facts.get("removed", {}), facts.get("candidates")),
        "plots": list(_plots(facts.get("scores", {}))),
        "hidden": facts.get("false_negatives"),
        "examples": facts.get("examples", []),
    }


def _lines(counts: Mapping[str, int], whole: int | None = None) -> list[TableLine]:
    """Return counts with their shares, those of nothing left out."""
    total = whole or sum(counts.values())
    return [TableLine(name.replace("_", " "), count, count / total) for name, count in counts.items() if count]


def _plots(scores: Mapping[str, Mapping[str, list[float]]]) -> Iterator[Plot]:
    for source, spread in scores.items():
        positives, negatives = sum(spread["positives"]), sum(spread["negatives"])
        caption = f"{source}: scores of {positives:,.0f} positives and {negatives:,.0f} negatives"
        counts = {name: np.array(spread[name]) for name in ("positives", "negatives")}
        yield Plot(caption, plots.distributions(caption, counts, np.array(spread["edges"])))
