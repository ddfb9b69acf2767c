"""Should you fine-tune at all? The reasons of the recommendation, and the tables that they are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embfit.report.facts import fact_rows
from embfit.report.subject import Subject
from embfit.report.wording import duration

MEGABYTE = 1e6


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the tables of `task=assess`."""
    found = subject.report.sections.get("assessment")
    if found is None:
        return None
    metric = found["power"]["metric"]
    words = {name: value for name, value in found["vocabulary"].items() if name != "split_examples"}
    return {
        "title": "Why",
        "reasons": found["reasons"],
        "metric": metric,
        "candidates": [(one, subject.systems[one["system"]].metrics[metric]) for one in found["candidates"]],
        "chunks": found["chunks"],
        "words": [(name, f"{value:.1%}" if name.endswith("share") else shown) for name, value, shown in _rows(words)],
        "examples": found["vocabulary"]["split_examples"],
        "labels": fact_rows(found["labels"], ("unjudged_at_10",)),
        "unjudged": found["labels"]["unjudged_at_10"],
        "power": found["power"],
        "trial": found["cost"]["trial"],
        "estimates": [_written(one) for one in found["cost"]["estimates"]],
        "priced": any(one["price"] is not None for one in found["cost"]["estimates"]),
    }


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Return name, value and the value in words, of facts that are not nested."""
    return [(name, facts[name], text) for name, (_, text) in zip(facts, fact_rows(facts), strict=True)]


def _written(one: Mapping[str, Any]) -> dict[str, str]:
    """Write an estimate for people."""
    prices = {name: "" if one[name] is None else f"{one[name]:.2f}" for name in ("price", "embed_price")}
    return {
        **{name: duration(one[name]) for name in ("embed_before", "train", "embed_after", "total")},
        **prices,
        "documents": f"{one['documents']:,}",
        "vectors": f"{one['vector_bytes'] / MEGABYTE:,.0f} MB",
    }
