"""How the tuned model is used: three lines of Python, in embfit and in sentence-transformers."""

from __future__ import annotations

from typing import Any

from embfit.report.decision import decide
from embfit.report.subject import Subject

PLACE = 45


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the model's folder and how sure it is that it should be used; None where the run kept no new model."""
    if subject.model is None or subject.report.training.get("kept_step") == 0:
        return None
    decision = decide(subject.report)
    ships = decision is None or decision.action == "ship"
    return {
        "title": "Use this model" if ships else "Try this model",
        "folder": str(subject.model),
        "encodes": (subject.model / "modules.json").is_file(),
    }
