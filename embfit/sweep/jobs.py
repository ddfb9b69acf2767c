"""The jobs of one sweep: composed and checked here, run by a launcher."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from embfit.compose.composition import compose
from embfit.compose.loader import Loader
from embfit.console import show_error
from embfit.launcher import Prepared
from embfit.outcome import outcome
from embfit.sweep.settled import settled

log = logging.getLogger(__name__)

HYDRAS_OWN = "hydra._internal."  # its basic launcher, which runs one job after another in this process


class Jobs:
    """Runs jobs, given as overrides.

    Args:
        config: of the sweep, with Hydra's settings.
        loader: composes each job.
        hydras: Hydra's launcher, for jobs in this process.
        folder: of the sweep.
        launcher: runs prepared jobs elsewhere; None runs them in this process.
    """

    def __init__(self, config: DictConfig, loader: Loader, hydras: Launcher, folder: Path, launcher: Any) -> None:
        self.config = config
        self.loader = loader
        self.hydras = hydras
        self.folder = folder
        self.launcher = launcher

    def check(self, overrides: list[str]) -> None:
        """Compose a job and hold it to its code.

        Raises:
            ConfigError: it is no sound configuration.
        """
        self.loader.load_sweep_config(self.config, overrides)

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """Return what overrides compose, with Hydra's settings; nothing is checked."""
        return compose(self.loader, overrides)

    def launch(self, jobs: list[list[str]], first: int) -> Sequence[str | None]:
        """Run jobs whose numbers follow each other; return the error of each, None for those that went well."""
        log.info("sweep in %s: jobs %d to %d", self.folder, first, first + len(jobs) - 1)
        if self.launcher is None:
            return self._by_hydra(jobs, first)
        prepared = [self._prepared(overrides, first + place) for place, overrides in enumerate(jobs)]
        found: Sequence[str | None] = self.launcher.launch(prepared, self.folder)
        return found

    def _by_hydra(self, jobs: list[list[str]], first: int) -> list[str | None]:
        """Run jobs through Hydra's launcher; its basic one gets them one by one, so that none can end the others."""
        if not str(self.config.hydra.launcher._target_).startswith(HYDRAS_OWN):
            return [_error(done) for done in self.hydras.launch(jobs, initial_job_idx=first)]
        errors: list[str | None] = []
        for number, job in enumerate(jobs, first):
            try:
                errors += [_error(done) for done in self.hydras.launch([job], initial_job_idx=number)]
            except Exception as error:  # before the job began: its folder cannot be made, perhaps
                errors.append(outcome(error).message)
                show_error(f"job {number} ({', '.join(job)}): {errors[-1]}", error)
        return errors

    def _prepared(self, overrides: list[str], number: int) -> Prepared:
        """Settle a job here, so that wherever and whenever it runs it is what was asked for."""
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # ${hydra:...} looks there
        try:
            with open_dict(config):
                values, origins, job = settled(self.loader, _without_hydra(config))
        finally:
            HydraConfig.instance().cfg = before
        return Prepared(number, values, origins.record(values), job)


def _without_hydra(config: DictConfig) -> DictConfig:
    config = config.copy()
    del config["hydra"]
    return config


def _error(done: JobReturn) -> str | None:
    """Return what ended a job badly; its own property would raise it, and say Hydra's words first."""
    return outcome(done._return_value).message if done.status is JobStatus.FAILED else None
