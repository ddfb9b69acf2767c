"""One run of a sweep and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WAITING = "waiting"  # the state of a job that has not started
ENDED = ("done", "pruned")  # states of jobs that need no more work


@dataclass(frozen=True)
class SweepJob:
    """A run to do.

    Args:
        number: the job's number, which is also the name of its folder.
        point: the varied keys with their values, as the command line writes them.
    """

    number: int
    point: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """The result of a job.

    Args:
        job: the job.
        state: `done`, `pruned`, `failed` or `interrupted`; `waiting` if the job has not started.
        error: the reason why the job is not done; None if it is.
        values: the value of each objective; None for those that the run does not have.
        headline: system (such as `tuned`) → the value of the report's first metric.
        minutes: how long the job took; None if it has not ended.
    """

    job: SweepJob
    state: str
    error: str | None = None
    values: tuple[float | None, ...] = ()
    headline: Mapping[str, Any] = field(default_factory=dict)
    minutes: float | None = None

    @property
    def found(self) -> tuple[float, ...] | None:
        """The objectives' values of a finished job; None if one of them is missing."""
        values = tuple(value for value in self.values if value is not None)
        return values if self.state == "done" and values and len(values) == len(self.values) else None
