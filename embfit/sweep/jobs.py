"""The jobs of one sweep: composed and checked here, run by a launcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, open_dict

from embfit.compose.composition import ResolvedConfig, compose, overrides_of, refuse_resume_in_files, resolve_config
from embfit.compose.loader import Loader
from embfit.compose.preflight import check
from embfit.compose.problems import Problem, gather, refuse
from embfit.errors import ConfigError
from embfit.launcher import Parallel, PreparedJob, Slurm
from embfit.run.resume import changed_values
from embfit.sweep.job import SweepJob
from embfit.sweep.space import Space

log = logging.getLogger(__name__)

SHOWN = 3  # changed values that a message names
SWEEP = "sweep"  # the writer of a value in its provenance


class Launcher(Protocol):
    """Runs jobs, in this process, in others or on a cluster."""

    def launch(self, jobs: Sequence[PreparedJob], folder: Path, ended: Callable[[], None]) -> list[str | None]:
        """Run jobs and return the error of each; None for those that ended well.

        Args:
            jobs: the jobs to run.
            folder: the sweep's folder.
            ended: called whenever a job has ended; if it raises, running jobs are stopped and no further job starts.
        """


class Jobs:
    """Checks the jobs of a sweep and runs them.

    Args:
        loader: the loader that composes each job's configuration.
        space: the space that the jobs are points of.
        folder: the sweep's folder.
        launcher: the launcher that runs the jobs.
        pruning: the configuration of the callback that may end a job early; None if no job is pruned.
    """

    def __init__(
        self, loader: Loader, space: Space, folder: Path, launcher: Launcher, pruning: Mapping[str, Any] | None = None
    ) -> None:
        self.loader = loader
        self.space = space
        self.folder = folder
        self.launcher = launcher
        self.pruning = pruning
        self._ready: dict[tuple[object, ...], PreparedJob] = {}

    def check(self, jobs: Sequence[SweepJob]) -> None:
        """Compose and check jobs. All are composed before any is checked against its code, which is slow to import.

        Raises:
            ConfigError: some jobs are wrong; the message names each problem once.
        """
        new = [job for job in jobs if _key(job) not in self._ready]
        resolved = gather(partial(self._resolved, job) for job in new)
        groups = self.loader.groups()
        gather(partial(check, found.values, found.origins, groups, found.raw) for _, found in resolved)
        for job, (overrides, found) in zip(new, resolved, strict=True):
            record = found.origins.record(found.values)
            self._ready[_key(job)] = PreparedJob(job.number, found.values, record, overrides)

    def refuse_changed(self, jobs: Sequence[SweepJob]) -> None:
        """Refuse finished jobs that ran under another configuration than they would have now.

        Their results would be ranked together with those of the new configuration.

        Raises:
            ConfigError: there is one; the message names what has changed.
        """
        for job in jobs:
            now = self._resolved(job)[1].values
            if changed := changed_values(self.folder / str(job.number), now):
                shown = ", ".join(changed[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if changed[SHOWN:] else "")
                raise ConfigError(
                    f"run.dir={self.folder}: job {job.number} is finished, and its configuration has changed since "
                    f"({shown}), so its result cannot be ranked with new ones; undo the change, or begin a new sweep "
                    "with run.dir=DIR"
                )

    def launch(self, jobs: Sequence[SweepJob], ended: Callable[[], None]) -> list[str | None]:
        """Run jobs that were checked and return the error of each; None for those that ended well.

        Args:
            jobs: the jobs to run.
            ended: called whenever a job has ended; if it raises, running jobs are stopped and no further job starts.
        """
        log.info("sweep in %s: %s", self.folder, f"job {jobs[0].number}" if len(jobs) == 1 else f"{len(jobs)} jobs")
        return self.launcher.launch([self._ready.pop(_key(job)) for job in jobs], self.folder, ended)

    @property
    def configs(self) -> list[Mapping[str, Any]]:
        """The configurations of the jobs that were checked and are not launched yet."""
        return [prepared.values for prepared in self._ready.values()]

    def _resolved(self, job: SweepJob) -> tuple[list[str], ResolvedConfig]:
        """Resolve a job's configuration now, so that it does not depend on where and when the job runs."""
        overrides = self.space.overrides(job.point)
        config = compose(self.loader, overrides)
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = job.number, str(job.number)
        found = resolve_config(self.loader, config, overrides, self._own(job, config), by=SWEEP)
        refuse_resume_in_files(found.values, found.origins)
        if isinstance(self.launcher, Slurm):
            trainer = config.hydra.runtime.choices.get("trainer"), found.values.get("trainer") or {}
            self._refuse(self.launcher.trainer_problems(*trainer), found)
        if isinstance(self.launcher, Parallel):
            self._refuse(self.launcher.cluster_problems(found.values.get("cluster")), found)
        return overrides_of(config), found

    @staticmethod
    def _refuse(problems: Iterable[Problem], found: ResolvedConfig) -> None:
        refuse(replace(problem, place=found.origins.find(problem.key)) for problem in problems)

    def _own(self, job: SweepJob, config: DictConfig) -> dict[str, Any]:
        """Return what the sweep adds to a job's configuration: its folder, and the callback that may end it early."""
        folder = self.folder.absolute()
        own: dict[str, Any] = {"run": {"dir": str(folder / str(job.number)), "sweep": str(folder)}}
        if self.pruning and isinstance(config.get("trainer"), DictConfig):
            own["trainer"] = {"callbacks": {"pruning": {**self.pruning, "number": job.number}}}
        return own


def _key(job: SweepJob) -> tuple[object, ...]:
    return (job.number, *job.point.items())
