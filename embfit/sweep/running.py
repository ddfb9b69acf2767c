"""Runs what a sweep proposes: jobs that are done are skipped, those that failed are told and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from embfit.sweep.folder import SweepFolder
from embfit.sweep.job import Job, Result
from embfit.sweep.objective import Aim
from embfit.sweep.space import Space

log = logging.getLogger(__name__)

Launch: TypeAlias = Callable[[list[list[str]], int], Sequence[str | None]]
"""Overrides of jobs, and the number of the first → for each the error that its launcher tells, or None."""


class Sweep(Protocol):
    """Says which points of a space to run, and what is looked for."""

    @property
    def aims(self) -> tuple[Aim, ...]:
        """What is looked for, the first one first."""

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the callback with which a training may be ended early, as a node of configuration."""

    def proposals(self, space: Space, folder: Path) -> Generator[list[Job], Mapping[int, Result], None]:
        """Yield jobs and take what became of them."""


def run_sweep(
    sweep: Sweep, space: Space, folder: SweepFolder, check: Callable[[list[str]], None], launch: Launch
) -> None:
    """Run a sweep to its end; the folder, which must be held, knows what became of its jobs.

    Args:
        sweep: what to run.
        space: of which points.
        folder: of the sweep.
        check: raises for overrides that are no sound configuration; all jobs proposed are checked first.
        launch: runs jobs of consecutive numbers.

    Raises:
        ConfigError: the space or a job of it is wrong.
    """
    proposals = sweep.proposals(space, folder.dir)
    results: Mapping[int, Result] | None = None
    while True:
        try:
            jobs = next(proposals) if results is None else proposals.send(results)
        except StopIteration:
            break
        _run(jobs, space, folder, check, launch)
        results = {job.number: folder.result(job, sweep.aims) for job in jobs}
    folder.complete()


def _run(
    jobs: list[Job], space: Space, folder: SweepFolder, check: Callable[[list[str]], None], launch: Launch
) -> None:
    waiting = [job for job in jobs if not folder.is_done(job)]
    for job in waiting:
        check(space.overrides(job.point))
    folder.begin(jobs)
    if len(waiting) < len(jobs):
        log.info("%d of %d jobs are done already", len(jobs) - len(waiting), len(jobs))
    for batch in _consecutive(waiting):
        told = launch([space.overrides(job.point) for job in batch], batch[0].number)
        folder.errors |= {job.number: error for job, error in zip(batch, told, strict=True) if error}


def _consecutive(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Cut jobs into runs of consecutive numbers, which is how launchers count."""
    batch: list[Job] = []
    for job in jobs:
        if batch and job.number != batch[-1].number + 1:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch
