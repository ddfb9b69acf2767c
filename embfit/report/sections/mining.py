"""What mining found, and what it left out."""

from __future__ import annotations

from typing import Any

from embfit.report.facts import fact_rows
from embfit.report.subject import Subject


def section(subject: Subject) -> dict[str, Any] | None:
    """Return what mining counted."""
    facts = subject.report.mining
    return {"title": "Mining", "rows": fact_rows(facts)} if facts else None
