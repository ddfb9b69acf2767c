"""What mining found, what it left out, how far negatives score below positives, and some of them to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embfit.report import plots
from embfit.report.drawing import Plot
from embfit.report.facts import fact_rows
from embfit.report.formatting import count
from embfit.report.subject import Subject

PLACE = 100

DRAWN = ("scores", "by_source", "removed", "examples", "false_negatives")  # shown as plots, tables and a list
COUNTED = ("miner", "queries", "positives", "mined", "wanted", "candidates", "scored_by")  # the first sentence's


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
        "sentences": list(_sentences(facts)),
        "rows": fact_rows(facts, drawn=(*DRAWN, *COUNTED, *_NOTES)),
        "sources": _lines({name: one["negatives"] for name, one in facts.get("by_source", {}).items()}),
        "removed": _lines(facts.get("removed", {}), facts.get("candidates")),
        "plots": list(_plots(facts.get("scores", {}))),
        "hidden": facts.get("false_negatives"),
        "examples": facts.get("examples", []),
    }


_NOTES: Mapping[str, tuple[str, str]] = {
    "judged": (
        "1 negative comes from the data's own judgements.",
        "{} negatives come from the data's own judgements.",
    ),
    "judged_unused": (
        "1 more judged negative was left out, since a query takes only so many (miner.judged).",
        "{} more judged negatives were left out, since a query takes only so many (miner.judged).",
    ),
    "judged_dropped": (
        "1 judged negative was dropped: it has the text of a positive, of the query or of another negative.",
        "{} judged negatives were dropped: they have the text of a positive, of the query or of another negative.",
    ),
    "short": ("1 query got fewer negatives than wanted.", "{} queries got fewer negatives than wanted."),
    "without": (
        "1 query has no negative; it learns from the other documents of its batch alone.",
        "{} queries have no negative; they learn from the other documents of their batch alone.",
    ),
    "unreached": (
        "For 1 query no positive was among the documents searched: its pair may be wrong, or the search weak.",
        "For {} queries no positive was among the documents searched: their pairs may be wrong, or the search weak.",
    ),
    "dropped": (
        "1 such query was left out of training (miner.unreached=drop).",
        "{} such queries were left out of training (miner.unreached=drop).",
    ),
}
"""Sentences of counts, for one and for several."""


def _sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what was mined, and what was short of it, in the order in which it happened."""
    queries = count(facts["queries"], "training query", "training queries") if "queries" in facts else ""
    if "mined" in facts:
        positives = count(facts["positives"], "relevant document") if "positives" in facts else ""
        given = f", which have {positives}" if positives else ""
        wanted = f", {facts['wanted']} wanted for each" if "wanted" in facts else ""
        source = f" among {facts['candidates']:,} candidates" if facts.get("candidates") else ""
        negatives = count(facts["mined"], "negative")
        yield f"The {facts['miner']} miner found {negatives}{source} for {queries}{given}{wanted}."
    elif queries:
        yield f"No negatives were mined for {queries}."
    for name, (one, several) in _NOTES.items():
        if number := facts.get(name):
            yield one if number == 1 else several.format(f"{number:,}")


def _lines(counts: Mapping[str, int], whole: int | None = None) -> list[TableLine]:
    """Return counts with their shares, those of nothing left out."""
    total = whole or sum(counts.values())
    return [TableLine(name.replace("_", " "), number, number / total) for name, number in counts.items() if number]


def _plots(scores: Mapping[str, Mapping[str, list[float]]]) -> Iterator[Plot]:
    for source, spread in scores.items():
        positives, negatives = sum(spread["positives"]), sum(spread["negatives"])
        caption = f"{source}: scores of {positives:,.0f} positives and {negatives:,.0f} negatives"
        counts = {name: np.array(spread[name]) for name in ("positives", "negatives")}
        yield Plot(caption, plots.distributions(caption, counts, np.array(spread["edges"])))
