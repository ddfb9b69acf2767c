"""Runs what a sweep proposes: jobs that are done are skipped, those that failed are told and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

from embfit.errors import UserError
from embfit.nearest import nearest
from embfit.run.record import read_record
from embfit.sweep.folder import SweepFolder
from embfit.sweep.job import Result, SweepJob
from embfit.sweep.jobs import Jobs
from embfit.sweep.objective import MINUTES, Objective, numbers
from embfit.sweep.space import Space

log = logging.getLogger(__name__)


class Sweep(Protocol):
    """Says which points of a space to run, and what is looked for."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is looked for, the first one first."""

    @property
    def requires_objectives(self) -> bool:
        """Whether jobs that do not have what is looked for are in vain."""

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the callback with which a training may be ended early, as a node of configuration."""

    def foreseen(self, space: Space) -> list[SweepJob]:
        """Return jobs to check before anything is made, in which each value of the space has a part."""

    def proposals(self, space: Space, folder: Path) -> Generator[list[SweepJob], Mapping[int, Result], None]:
        """Yield jobs and take what became of them."""


def run_sweep(sweep: Sweep, folder: SweepFolder, jobs: Jobs) -> None:
    """Run a sweep to its end; the folder, which must be held, knows what became of its jobs.

    Args:
        sweep: what to run.
        folder: of the sweep.
        jobs: checks what is proposed, and runs it.

    Raises:
        ConfigError: a job is no sound configuration; none that was proposed with it was run.
        UserError: jobs that are done do not have what is looked for.
    """
    measured = _Measured(sweep, folder)
    proposals = sweep.proposals(jobs.space, folder.dir)
    results: Mapping[int, Result] | None = None
    while True:
        try:
            proposed = next(proposals) if results is None else proposals.send(results)
        except StopIteration:
            break
        _run(proposed, folder, jobs, measured.check)
        results = {job.number: folder.result(job, sweep.objectives) for job in proposed}
    folder.complete()


class _Measured:
    """Stops a sweep whose first finished job does not have what is looked for."""

    def __init__(self, sweep: Sweep, folder: SweepFolder) -> None:
        self.objectives = sweep.objectives
        self.folder = folder
        self.known = not sweep.requires_objectives  # that jobs have it, or that it does not matter

    def check(self) -> None:
        """Look at the jobs that are done, until one has all objectives.

        Raises:
            UserError: none has; says what there is instead.
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
                f"sweep.objective={missing}: job {number} is done and has no such number"
                + (f"; did you mean '{meant}'?" if meant else "")
                + f"\nit has {', '.join(there)}, and config.KEY; the sweep has stopped"
            )


def _run(proposed: list[SweepJob], folder: SweepFolder, jobs: Jobs, ended: Callable[[], None]) -> None:
    waiting = [job for job in proposed if not folder.is_done(job)]
    jobs.check(waiting)
    folder.begin(proposed)
    if len(waiting) < len(proposed):
        log.info("%d of %d jobs are done already", len(proposed) - len(waiting), len(proposed))
    ended()  # as some of them may be
    if waiting:
        told = jobs.launch(waiting, ended)
        folder.errors |= {job.number: error for job, error in zip(waiting, told, strict=True) if error}
