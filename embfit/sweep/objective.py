"""Which number of a run's report a sweep looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Direction: TypeAlias = Literal["maximize", "minimize"]

DEV = "dev."


def read_objective(report: Mapping[str, Any], objective: str) -> float | None:
    """Return a number of `report.json`, None when it is not there.

    Args:
        report: the report.
        objective: `dev.METRIC` for the best validation of the training, which the test split has no part in; else the
            path of a number, such as `systems.tuned.metrics.ndcg@10` or `timings.train`.
    """
    if objective.startswith(DEV):
        metric = objective.removeprefix(DEV)
        history = (report.get("training") or {}).get("history", [])
        return max((entry[metric] for entry in history if entry.get(metric) is not None), default=None)
    found: Any = report
    for part in objective.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
