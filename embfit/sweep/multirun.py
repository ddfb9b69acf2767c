"""`-m`: from a composed command line with several values to a sweep that ends in a summary.

This is embfit's own, and no sweeper plugin of Hydra's: the released one for Optuna is held to an Optuna and an
SQLAlchemy of years ago, Hydra's basic one forgets what it has done, and both stop telling after the first failure. The
grammar of `-m` and the launchers stay Hydra's.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from embfit.compose.build import make
from embfit.compose.loader import Loader
from embfit.compose.origins import Origins
from embfit.compose.preflight import check_group
from embfit.errors import UserError
from embfit.sweep.against_default import against_default
from embfit.sweep.best import write_experiment
from embfit.sweep.folder import SweepFolder, unfinished
from embfit.sweep.grid import Grid
from embfit.sweep.jobs import Jobs
from embfit.sweep.page import write_page
from embfit.sweep.running import run_sweep
from embfit.sweep.space import Space, read_space, with_default
from embfit.sweep.summary import Summary


def sweep(config: DictConfig, loader: Loader, launcher: Callable[[], Launcher]) -> None:
    """Run the sweep that a configuration asks for; tell at the end what became of its jobs, also when interrupted.

    Args:
        config: composed for several jobs, with Hydra's settings.
        loader: composes each job.
        launcher: makes Hydra's, which runs jobs in this process.

    Raises:
        ConfigError: the space or a job is wrong; nothing was run.
        UserError: which jobs did not end well; each has told its own error.
    """
    asked = _asked(config)
    space = read_space(OverridesParser.create(loader).parse_overrides(asked))
    strategy = _made(config, "sweep") or Grid()
    varied = {axis.key for axis in space.axes}
    command = [*space.fixed, *(text for text in asked if text.partition("=")[0] in varied)]
    dir = _folder(config, command)
    _keep_in(config, dir)
    folder = SweepFolder(dir, command, strategy.pruning(dir))
    jobs = Jobs(config, loader, launcher(), dir, _made(config, "launcher"))
    with folder.held():
        try:
            run_sweep(strategy, with_default(space, jobs.composed(space.fixed)), folder, jobs.check, jobs.launch)
        finally:
            results = [folder.result(job, strategy.aims) for job in folder.jobs.values()]
            typed = shlex.join(["python", "-m", "embfit", "-m", *asked])
            summary = Summary(typed, strategy.aims, results)
            if results:
                summary = _compared(summary, with_default(space, jobs.composed(space.fixed)), dir)
                _tell(summary, dir, loader, space)
    if failed := [" ".join(space.overrides(result.job.point)) for result in summary.unfinished]:
        raise UserError(f"{len(failed)} of the sweep's jobs failed: {'; '.join(failed)}")


def _compared(summary: Summary, space: Space, folder: Path) -> Summary:
    """Add how the best compares with the default, where anything but the seed is varied."""
    if summary.best is None or not summary.best.point:
        return summary
    metric = summary.aims[0].name.rpartition(".")[2]
    return replace(summary, verdict=against_default(summary.best, summary.candidates, space.default, folder, metric))


def _tell(summary: Summary, folder: Path, loader: Loader, space: Space) -> None:
    """Print and write the summary, and the best point as an experiment."""
    summary.write(folder)
    page = write_page(summary, folder)
    print(summary.text())
    if best := summary.best:
        reason = f"{summary.score(best)}, the best of a sweep of {len(summary.results)} jobs."
        file = write_experiment(loader, space.overrides(best.point), reason, folder)
        print(f"best     {file}\nuse it   EMBFIT_CONFIG_PATH={file.parents[1]} python -m embfit experiment={file.stem}")
    print(f"summary  {page}", flush=True)


def _asked(config: DictConfig) -> list[str]:
    """Return the overrides, those that a file gives under `hydra.sweeper.params` first."""
    parameters = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    return [*(f"{key!s}={value}" for key, value in parameters.items()), *map(str, config.hydra.overrides.task)]


def _made(config: DictConfig, group: str) -> Any:
    """Return what a choice of a group is made of, None where nothing is chosen."""
    if config.get(group) is None:
        return None
    values = OmegaConf.to_container(config[group], resolve=True)
    check_group({group: values}, group, Origins())
    return make(values, group)


def _keep_in(config: DictConfig, folder: Path) -> None:
    """Have each job composed for the sweep's folder: `${now:}` would name another one for a sweep that goes on."""
    with open_dict(config):
        kept = [text for text in config.hydra.overrides.hydra if not str(text).startswith("hydra.sweep.dir=")]
        config.hydra.overrides.hydra = [
            *kept,
            f"hydra.sweep.dir={QuotedString(str(folder), Quote.single).with_quotes()}",
        ]
        config.hydra.sweep.dir = str(folder)


def _folder(config: DictConfig, command: Sequence[str]) -> Path:
    """Return the folder named, else that of the same sweep where it stopped, else a new one."""
    folder = Path(str(config.hydra.sweep.dir))
    if any(str(override).startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
        return folder
    return unfinished(folder.parent.parent, command) or folder
