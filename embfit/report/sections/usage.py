"""How the tuned model is used: three lines of Python, in embfit and in sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embfit.model.late_interaction_folder import holds_late_interaction
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
        "kind": _kind(subject.model),
    }


def _kind(folder: Path) -> str:
    """Return which kind of model a folder holds: `encoder`, `late interaction` or `cross-encoder`."""
    if holds_late_interaction(folder):
        return "late interaction"
    return "encoder" if (folder / "modules.json").is_file() else "cross-encoder"
