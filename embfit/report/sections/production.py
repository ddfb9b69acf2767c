"""The same systems on what an evaluation was made of, and on what users ask."""

from __future__ import annotations

from typing import Any

from embfit.evaluator.comparison import ALL
from embfit.records import Comparison
from embfit.report.production import production_sentences
from embfit.report.subject import Subject

PLACE = 40


def section(subject: Subject) -> dict[str, Any] | None:
    """Return each system's first metric on both query sets, and the differences on the production one."""
    found = subject.report.sections.get("production")
    if found is None:
        return None
    metric = found["gaps"][0]["metric"]
    first = [gap for gap in found["gaps"] if gap["metric"] == metric]
    return {
        "title": "Do users' queries agree?",
        "metric": metric,
        "synthetic": found["synthetic_split"],
        "split": found["split"],
        "rows": [(gap, found["systems"][gap["system"]]) for gap in first],
        "comparisons": [
            Comparison(**one) for one in found["comparisons"] if (one["metric"], one["subset"]) == (metric, ALL)
        ],
        "sentences": list(production_sentences(found)),
    }
