"""One run of a sweep, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WAITING = "waiting"  # the state of a job that was not begun
ENDED = ("done", "pruned")  # states that need no more work


@dataclass(frozen=True)
class SweepJob:
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
        state: `done`, `pruned`, `failed` or `interrupted`; `waiting` when it was not begun.
        error: why not `done`.
        values: of each objective of the sweep; None where the run has none.
        headline: the report's first metric by system, such as `tuned`.
        minutes: it took.
    """

    job: SweepJob
    state: str
    error: str | None = None
    values: tuple[float | None, ...] = ()
    headline: Mapping[str, Any] = field(default_factory=dict)
    minutes: float | None = None

    @property
    def found(self) -> tuple[float, ...] | None:
        """The objectives of a finished job, if it has all of them."""
        values = tuple(value for value in self.values if value is not None)
        return values if self.state == "done" and values and len(values) == len(self.values) else None
