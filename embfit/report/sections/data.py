"""The collection: what loading counted and changed, and the digests that identify it."""

from __future__ import annotations

from typing import Any

from embfit.report.facts import fact_rows
from embfit.report.subject import Subject

PLACE = 110

NOTHING = ("0", "none")  # said in one line


def section(subject: Subject) -> dict[str, Any] | None:
    """Return what is known of the data."""
    facts = subject.report.data
    if not facts:
        return None
    rows = fact_rows(facts)
    return {
        "title": "Data",
        "rows": [(key, value) for key, value in rows if "sha256" not in key and value not in NOTHING],
        "nothing": [key for key, value in rows if value in NOTHING],
        "digests": [row for row in rows if "sha256" in row[0]],
    }
