"""Runs what a sweep proposes: jobs that are done are skipped, those that failed are told and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

from embfit.sweep.folder import SweepFolder
from embfit.sweep.job import Job, Result
from embfit.sweep.jobs import Jobs
from embfit.sweep.objective import Aim
from embfit.sweep.space import Space

log = logging.getLogger(__name__)


class Sweep(Protocol):
    """Says which points of a space to run, and what is looked for."""

    @property
    def aims(self) -> tuple[Aim, ...]:
        """What is looked for, the first one first."""

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the callback with which a training may be ended early, as a node of configuration."""

    def foreseen(self, space: Space) -> list[Job]:
        """Return jobs to check before anything is made, in which each value of the space has a part."""

    def proposals(self, space: Space, folder: Path) -> Generator[list[Job], Mapping[int, Result], None]:
        """Yield jobs and take what became of them."""


def run_sweep(sweep: Sweep, folder: SweepFolder, jobs: Jobs) -> None:
    """Run a sweep to its end; the folder, which must be held, knows what became of its jobs.

    Args:
        sweep: what to run.
        folder: of the sweep.
        jobs: checks what is proposed, and runs it.

    Raises:
        ConfigError: a job is no sound configuration; none that was proposed with it was run.
    """
    proposals = sweep.proposals(jobs.space, folder.dir)
    results: Mapping[int, Result] | None = None
    while True:
        try:
            proposed = next(proposals) if results is None else proposals.send(results)
        except StopIteration:
            break
        _run(proposed, folder, jobs)
        results = {job.number: folder.result(job, sweep.aims) for job in proposed}
    folder.complete()


def _run(proposed: list[Job], folder: SweepFolder, jobs: Jobs) -> None:
    waiting = [job for job in proposed if not folder.is_done(job)]
    jobs.check(waiting)
    folder.begin(proposed)
    if len(waiting) < len(proposed):
        log.info("%d of %d jobs are done already", len(proposed) - len(waiting), len(proposed))
    if waiting:
        told = jobs.launch(waiting)
        folder.errors |= {job.number: error for job, error in zip(waiting, told, strict=True) if error}
