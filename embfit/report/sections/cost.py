"""What the run cost: seconds by stage, speed and memory of training, seconds of each system."""

from __future__ import annotations

from typing import Any

from embfit.report.facts import shown
from embfit.report.formatting import duration
from embfit.report.subject import Subject

PLACE = 120

MEASURED = ("seconds", "validation_seconds", "pairs_per_second", "peak_memory_gb")  # of what training records


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the stages with their share of the longest, and what was measured beside them."""
    timings, training = subject.report.timings, subject.report.training
    if not timings:
        return None
    longest = max(*timings.values(), 0.001)
    systems = [
        (f"{name}, embedding and search", duration(evaluation.facts["seconds"]) + _reused(evaluation.facts))
        for name, evaluation in subject.systems.items()
        if "seconds" in evaluation.facts
    ]
    return {
        "title": "Cost",
        "stages": [(stage, seconds, 100 * seconds / longest) for stage, seconds in timings.items()],
        "total": sum(timings.values()),
        "rows": [*_training(training), *systems],
        "resumed": "resume=" in subject.command,
    }


def _training(facts: Any) -> list[tuple[str, str]]:
    """Return speed and memory of training, in words."""
    rows = []
    if "seconds" in facts:
        rows.append(("training alone", duration(facts["seconds"])))
    if "validation_seconds" in facts:
        rows.append(("validation in training", duration(facts["validation_seconds"])))
    if "pairs_per_second" in facts:
        rows.append(("training pairs per second", shown(facts["pairs_per_second"])))
    if "peak_memory_gb" in facts:
        rows.append(("peak memory", f"{facts['peak_memory_gb']:.2f} GB"))
    return rows


def _reused(facts: Any) -> str:
    return " (from the store)" if facts.get("reused") else ""
