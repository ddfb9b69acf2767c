"""`-m`: from a composed command line with several values to a sweep that ends in a summary.

This is embfit's own, and no sweeper plugin of Hydra's: the released one for Optuna is held to an Optuna and an
SQLAlchemy of years ago, Hydra's basic one forgets what it has done, and both stop telling after the first failure. The
grammar of `-m` and the launchers stay Hydra's.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from embfit.compose.build import make
from embfit.compose.loader import Loader
from embfit.compose.origins import Origins
from embfit.compose.preflight import check_group
from embfit.errors import UserError
from embfit.outcome import outcome
from embfit.sweep.best import write_experiment
from embfit.sweep.folder import SweepFolder, unfinished
from embfit.sweep.grid import Grid
from embfit.sweep.running import run_sweep
from embfit.sweep.space import Space, read_space
from embfit.sweep.summary import Summary

log = logging.getLogger(__name__)


def sweep(config: DictConfig, loader: Loader, launcher: Launcher) -> None:
    """Run the sweep that a configuration asks for; tell at the end what became of its jobs, also when interrupted.

    Args:
        config: composed for several jobs, with Hydra's settings.
        loader: composes each job.
        launcher: runs them.

    Raises:
        ConfigError: the space or a job is wrong; nothing was run.
        UserError: which jobs did not end well; each has told its own error.
    """
    asked = _asked(config)
    space = read_space(OverridesParser.create(loader).parse_overrides(asked))
    strategy = _strategy(config)
    varied = {axis.key for axis in space.axes}
    command = [*space.fixed, *(text for text in asked if text.partition("=")[0] in varied)]
    folder = SweepFolder(_folder(config, command), command)

    def check(job: list[str]) -> None:
        loader.load_sweep_config(config, job)

    def launch(jobs: list[list[str]], first: int) -> Sequence[str | None]:
        log.info("sweep in %s: jobs %d to %d", folder.dir, first, first + len(jobs) - 1)
        return [_error(done) for done in launcher.launch(jobs, initial_job_idx=first)]

    with folder.held():
        try:
            run_sweep(strategy, space, folder, check, launch)
        finally:
            results = [folder.result(job, strategy.objective) for job in folder.jobs.values()]
            typed = shlex.join(["python", "-m", "embfit", "-m", *asked])
            summary = Summary(typed, strategy.objective, strategy.direction, results)
            if results:
                _tell(summary, folder.dir, loader, space)
    if failed := [" ".join(space.overrides(result.job.point)) for result in summary.unfinished]:
        raise UserError(f"{len(failed)} of the sweep's jobs failed: {'; '.join(failed)}")


def _tell(summary: Summary, folder: Path, loader: Loader, space: Space) -> None:
    """Print and write the summary, and the best job as an experiment."""
    summary.write(folder)
    print(summary.text())
    if best := summary.best:
        reason = f"{summary.objective} {best.objective:.4f}, the best of {len(summary.results)} jobs of a sweep."
        file = write_experiment(loader, space.overrides(best.job.point), reason, folder)
        print(f"best     {file}\nuse it   EMBFIT_CONFIG_PATH={file.parents[1]} python -m embfit experiment={file.stem}")
    print(f"summary  {folder / 'summary.html'}", flush=True)


def _asked(config: DictConfig) -> list[str]:
    """Return the overrides, those that a file gives under `hydra.sweeper.params` first."""
    parameters = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    return [*(f"{key!s}={value}" for key, value in parameters.items()), *map(str, config.hydra.overrides.task)]


def _strategy(config: DictConfig) -> Any:
    if config.get("sweep") is None:
        return Grid()
    values = OmegaConf.to_container(config.sweep, resolve=True)
    check_group({"sweep": values}, "sweep", Origins())
    return make(values, "sweep")


def _folder(config: DictConfig, command: Sequence[str]) -> Path:
    """Return the folder named, else that of the same sweep where it stopped, else a new one."""
    folder = Path(str(config.hydra.sweep.dir))
    if any(str(override).startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
        return folder
    return unfinished(folder.parent.parent, command) or folder


def _error(done: JobReturn) -> str | None:
    """Return what ended a job badly; its own property would raise it, and say Hydra's words first."""
    return outcome(done._return_value).message if done.status is JobStatus.FAILED else None
