"""Runs the jobs that a sweep proposes. Finished jobs are skipped; if a job fails, the others still run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

from embfit.errors import UserError
from embfit.run.record import read_record
from embfit.suggestions import nearest
from embfit.sweep.folder import SweepFolder
from embfit.sweep.job import Result, SweepJob
from embfit.sweep.jobs import Jobs
from embfit.sweep.objective import MINUTES, Objective, numbers
from embfit.sweep.space import Space

log = logging.getLogger(__name__)


class Sweep(Protocol):
    """Says which points of a space to run, and by which numbers to compare them."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The numbers by which jobs are compared, the most important one first."""

    @property
    def requires_objectives(self) -> bool:
        """Whether jobs without the objectives are useless, so that the sweep should stop."""

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the configuration of the callback that may end a training early; None if none is."""

    def known_jobs(self, space: Space) -> list[SweepJob]:
        """Return jobs to check before anything runs; together they contain each value of the space."""

    def proposals(self, space: Space, folder: Path) -> Generator[list[SweepJob], Mapping[int, Result], None]:
        """Yield jobs and receive their results by number."""


def run_sweep(sweep: Sweep, folder: SweepFolder, jobs: Jobs) -> None:
    """Run a sweep to its end; the results are in its folder afterwards.

    Args:
        sweep: the strategy that proposes jobs.
        folder: the sweep's folder, which this process must hold.
        jobs: checks the proposed jobs and runs them.

    Raises:
        ConfigError: a job's configuration is wrong; no job that was proposed with it was run.
        UserError: finished jobs do not have the objectives.
    """
    objectives = _ObjectivesCheck(sweep, folder)
    proposals = sweep.proposals(jobs.space, folder.dir)
    results: Mapping[int, Result] | None = None
    while True:
        try:
            proposed = next(proposals) if results is None else proposals.send(results)
        except StopIteration:
            break
        _run(proposed, folder, jobs, objectives.check)
        results = {job.number: folder.result(job, sweep.objectives) for job in proposed}
    folder.complete()


class _ObjectivesCheck:
    """Stops a sweep whose first finished job does not have the objectives."""

    def __init__(self, sweep: Sweep, folder: SweepFolder) -> None:
        self.objectives = sweep.objectives
        self.folder = folder
        self.known = not sweep.requires_objectives  # whether jobs have the objectives, or need not have them

    def check(self) -> None:
        """Check the finished jobs until one of them has all objectives.

        Raises:
            UserError: no finished job has all objectives; the message says which numbers there are.
        """
        if self.known:
            return
        results = [self.folder.result(job, self.objectives) for job in self.folder.jobs.values()]
        done = [result for result in results if result.state == "done"]
        self.known = any(result.found is not None for result in done)
        if done and not self.known:
            values = zip(self.objectives, done[0].values, strict=True)
            missing = next(objective.name for objective, value in values if value is None)
            number = done[0].job.number
            there = [*numbers(read_record(self.folder.dir / str(number)).report), MINUTES]
            meant = nearest(missing, there)
            raise UserError(
                f"sweep.objective={missing}: job {number} has ended and its report has no such number"
                + (f"; did you mean '{meant}'?" if meant else "")
                + f"\nthe sweep has stopped; choose one of {', '.join(there)}, or config.KEY"
            )


def _run(proposed: list[SweepJob], folder: SweepFolder, jobs: Jobs, ended: Callable[[], None]) -> None:
    waiting = [job for job in proposed if not folder.is_done(job)]
    jobs.refuse_changed([job for job in proposed if job not in waiting])
    jobs.check(waiting)
    folder.begin(proposed)
    if len(waiting) < len(proposed):
        log.info("%d of %d jobs are done already", len(proposed) - len(waiting), len(proposed))
    ended()  # some of the proposed jobs may have ended earlier
    if waiting:
        errors = jobs.launch(waiting, ended)
        folder.errors |= {job.number: error for job, error in zip(waiting, errors, strict=True) if error}
