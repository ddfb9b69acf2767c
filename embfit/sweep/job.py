"""One run of a sweep, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """A run to do.

    Args:
        number: names its folder.
        point: the varied keys with their values, as the command line writes them.
    """

    number: int
    point: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Args:
        job: which.
        state: `done`, `failed` or `interrupted`; `waiting` when it was not begun.
        error: why not `done`.
        objective: what the sweep looks at; None where the run's report has none.
        headline: the report's first metric by system, such as `tuned`.
        minutes: it took.
    """

    job: Job
    state: str
    error: str | None = None
    objective: float | None = None
    headline: Mapping[str, Any] = field(default_factory=dict)
    minutes: float | None = None
