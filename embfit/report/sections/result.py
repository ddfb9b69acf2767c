"""The headline: every system in every metric, the differences and how sure they are."""

from __future__ import annotations

from typing import Any

from embfit.report.findings import pairs
from embfit.report.subject import Subject

PLACE = 20


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the systems and the comparisons of all queries."""
    if not subject.systems:
        return None
    return {
        "title": "Result",
        "systems": subject.report.evaluations,
        "places": subject.places,
        "pairs": pairs(subject.report.comparisons),
    }
