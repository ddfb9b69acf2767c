"""`-m`: from a command line with several values to a sweep that ends with a summary.

embfit does not use Hydra's sweeper plugins. The released plugin for Optuna requires outdated versions of Optuna and
SQLAlchemy, Hydra's basic sweeper does not record what it has done, and both stop reporting after the first failure.
Hydra's launchers are not used either, because they compose each job again where it runs. The grammar of `-m` is
Hydra's.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from embfit.compose.build import make
from embfit.compose.command_line import key_and_value, refuse_ignored
from embfit.compose.composition import compose, overrides_of
from embfit.compose.hydra_errors import readable_errors
from embfit.compose.loader import Loader
from embfit.compose.preflight import check_group
from embfit.compose.problems import refuse
from embfit.compose.provenance import trace
from embfit.compose.value_origins import COMMAND_LINE, Origins
from embfit.errors import ConfigError, UserError
from embfit.launcher import InProcess
from embfit.run.console import listen
from embfit.run.unique_folder import unique_folder
from embfit.sweep.best_experiment import write_experiment
from embfit.sweep.default_comparison import compare_with_default
from embfit.sweep.folder import SweepFolder, unfinished
from embfit.sweep.grid import Grid
from embfit.sweep.job import WAITING
from embfit.sweep.jobs import Jobs
from embfit.sweep.objective import unknown_objectives
from embfit.sweep.running import Sweep, run_sweep
from embfit.sweep.space import Space, read_space, with_default
from embfit.sweep.summary import Summary


def sweep(loader: Loader, overrides: Sequence[str]) -> None:
    """Run the sweep that a command line asks for and report its results at the end, also after an interruption.

    Args:
        loader: the loader that composes the sweep and each of its jobs.
        overrides: the command line.

    Raises:
        ConfigError: the space or a job is wrong; nothing was run.
        UserError: some jobs failed; the message names them, and each has shown its own error.
    """
    listen()
    config = compose(loader, _placed(loader, overrides), multirun=True)
    _refuse_plugins(config)
    typed = _all_overrides(config)
    parsed = OverridesParser.create(loader).parse_overrides(typed)
    origins = trace(loader, [str(one.input_line) for one in parsed if not one.is_sweep_override()])
    strategy: Sweep = _made(config, "sweep", origins) or Grid()
    space = read_space(parsed)
    varied = {axis.key for axis in space.axes}
    command = [*space.fixed, *(text for text in typed if text.partition("=")[0] in varied)]
    named = [text for text in overrides if key_and_value(text)[0] == "run.dir"]
    with _folder(config, origins, command, _name(strategy)) as dir:
        folder = SweepFolder(dir, command, _name(strategy))
        jobs = _checked(loader, config, origins, strategy, space, folder)
        with folder.held():
            try:
                run_sweep(strategy, folder, jobs)
            finally:
                results = [folder.result(job, strategy.objectives) for job in folder.jobs.values()]
                told = shlex.join(["python", "-m", "embfit", "-m", *named, *typed])
                summary = Summary(told, strategy.objectives, results)
                if any(result.state != WAITING for result in results):
                    summary = _compared(summary, jobs.space, dir)
                    _report(summary, dir, loader, space)
    if failed := [" ".join(space.overrides(result.job.point)) for result in summary.unfinished]:
        raise UserError(f"{len(failed)} of the sweep's jobs failed: {'; '.join(failed)}")


def _checked(
    loader: Loader, config: DictConfig, origins: Origins, strategy: Sweep, space: Space, folder: SweepFolder
) -> Jobs:
    """Return the sweep's `Jobs` after checking those that are known before the sweep starts."""
    known_jobs = strategy.known_jobs(space)
    waiting = [job for job in known_jobs if not folder.is_done(job)]
    space = with_default(space, compose(loader, space.fixed))
    launcher = _made(config, "launcher", origins) or InProcess()
    jobs = Jobs(loader, space, folder.dir, launcher, strategy.pruning(folder.dir))
    jobs.check(waiting)
    if waiting == known_jobs:  # otherwise a finished job may have an objective that these lack
        refuse(unknown_objectives(strategy.objectives, jobs.configs, origins.find("sweep.objective")))
    return jobs


def _placed(loader: Loader, overrides: Sequence[str]) -> list[str]:
    """Return the overrides with `run.dir` translated to the sweep's folder."""
    refuse_ignored(overrides, ("hydra.run.dir",))
    found = []
    for override in overrides:
        key, folder = key_and_value(override)
        if key in ("run.dir", "hydra.sweep.dir"):
            with readable_errors(loader, overrides, multirun=True):
                parsed = OverridesParser.create(loader).parse_override(override)
            if parsed.is_sweep_override():
                raise ConfigError(f"{override}: a sweep has one folder, which holds its jobs' folders; name one folder")
            if parsed.value() in ("", None):
                raise ConfigError(f"{key}: is empty; name a folder ({COMMAND_LINE})")
            override = f"hydra.sweep.dir={folder}"
        found.append(override)
    return found


def _refuse_plugins(config: DictConfig) -> None:
    """Refuse Hydra's sweeper and launcher plugins, whose jobs would bypass embfit's folders and summary."""
    for part, remedy in {"sweeper": "sweep=grid or sweep=optuna", "launcher": "a launcher of embfit's"}.items():
        target = str(config.hydra[part]._target_)
        if not target.startswith("hydra._internal."):
            raise ConfigError(f"hydra/{part}={target} is not supported; choose {remedy} instead")


def _compared(summary: Summary, space: Space, folder: Path) -> Summary:
    """Add the comparison of the best point with the default, if anything besides the seed is varied."""
    if summary.best is None or not summary.best.point:
        return summary
    metric = summary.objectives[0].name.rpartition(".")[2]
    return replace(
        summary, verdict=compare_with_default(summary.best, summary.candidates, space.default, folder, metric)
    )


def _report(summary: Summary, folder: Path, loader: Loader, space: Space) -> None:
    """Print the summary, and write it and the best point as an experiment."""
    from embfit.sweep.page import write_page

    summary.write(folder)
    page = write_page(summary, folder)
    print(summary.text())
    if best := summary.best:
        reason = f"{summary.score(best)}, the best of a sweep of {len(summary.results)} jobs."
        file = write_experiment(loader, space.overrides(best.point), reason, folder)
        place = shlex.quote(f"{file.parents[1]}")
        print(f"best     {file}\nuse it   EMBFIT_CONFIG_PATH={place} python -m embfit experiment={file.stem}")
    print(f"summary  {page}", flush=True)


def _all_overrides(config: DictConfig) -> list[str]:
    """Return the overrides of `hydra.sweeper.params` in a file, followed by those of the command line."""
    parameters = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    return [*(f"{key!s}={value}" for key, value in parameters.items()), *overrides_of(config)]


def _made(config: DictConfig, group: str, origins: Origins) -> Any:
    """Return the object that a group's choice describes; None if nothing is chosen."""
    if config.get(group) is None:
        return None
    values = OmegaConf.to_container(config[group], resolve=True)
    check_group({group: values}, group, origins)
    return make(values, group)


def _name(strategy: Sweep) -> str:
    """Return the name of a strategy's class, by which the sweep's folder identifies it."""
    kind = type(strategy)
    return f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def _folder(config: DictConfig, origins: Origins, command: Sequence[str], strategy: str) -> Iterator[Path]:
    """Return the folder that the command line names, or else that of the same unfinished sweep, or else a new one.

    Raises:
        ConfigError: a file, not the command line, names the folder.
    """
    folder = Path(str(config.hydra.sweep.dir))
    if any(key_and_value(str(text))[0] == "hydra.sweep.dir" for text in config.hydra.overrides.hydra):
        yield folder
    elif not origins.is_default("run.dir"):
        place = origins.find("run.dir")
        raise ConfigError(
            f"run.dir: a file cannot name a sweep's folder; give run.dir=DIR on the command line ({place})"
        )
    elif (stopped := unfinished(folder.parent.parent, command, strategy)) is not None:
        yield stopped
    else:
        with unique_folder(folder) as new:
            yield new
