"""What the words of the page mean."""

from __future__ import annotations

from typing import Any

from embfit.report import glossary
from embfit.report.formatting import metric_label
from embfit.report.subject import Subject

PLACE = 125


def section(subject: Subject) -> dict[str, Any] | None:
    """Return each word that the page uses with what it means."""
    if not subject.systems:
        return None
    report = subject.report
    terms = {metric_label(name): glossary.definition(name) for name in report.evaluations[0].metrics}
    used = {found.subset for found in report.comparisons}
    if report.comparisons:
        used |= {"95 % interval", "p"}
    if any(found.p_holm is not None for found in report.comparisons):
        used.add("p, corrected")
    terms |= {term: meaning for term, meaning in glossary.MEANINGS.items() if term in used}
    return {"title": "Glossary", "terms": [(term, meaning) for term, meaning in terms.items() if meaning]}
