"""`-m`: from a command line with several values to a sweep that ends in a summary.

This is embfit's own, and no sweeper plugin of Hydra's: the released one for Optuna is held to an Optuna and an
SQLAlchemy of years ago, Hydra's basic one forgets what it has done, and both stop telling after the first failure. Nor
are Hydra's launchers used, which compose each job again where it runs. The grammar of `-m` stays Hydra's.
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
from embfit.compose.origins import COMMAND_LINE, Origins
from embfit.compose.preflight import check_group
from embfit.compose.problems import refuse
from embfit.compose.provenance import trace
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
    """Run the sweep that a command line asks for; tell at the end what became of its jobs, also when interrupted.

    Args:
        loader: composes it and each of its jobs.
        overrides: the command line.

    Raises:
        ConfigError: the space or a job is wrong; nothing was run.
        UserError: which jobs did not end well; each has told its own error.
    """
    listen()
    config = compose(loader, _placed(loader, overrides), multirun=True)
    _refuse_plugins(config)
    typed = _typed(config)
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
                    _tell(summary, dir, loader, space)
    if failed := [" ".join(space.overrides(result.job.point)) for result in summary.unfinished]:
        raise UserError(f"{len(failed)} of the sweep's jobs failed: {'; '.join(failed)}")


def _checked(
    loader: Loader, config: DictConfig, origins: Origins, strategy: Sweep, space: Space, folder: SweepFolder
) -> Jobs:
    """Return what runs the jobs of a sweep, when those that can be foreseen are sound."""
    foreseen = strategy.foreseen(space)
    waiting = [job for job in foreseen if not folder.is_done(job)]
    space = with_default(space, compose(loader, space.fixed))
    launcher = _made(config, "launcher", origins) or InProcess()
    jobs = Jobs(loader, space, folder.dir, launcher, strategy.pruning(folder.dir))
    jobs.check(waiting)
    if waiting == foreseen:  # else a job that is done may have what no other has
        refuse(unknown_objectives(strategy.objectives, jobs.configs, origins.find("sweep.objective")))
    return jobs


def _placed(loader: Loader, overrides: Sequence[str]) -> list[str]:
    """Return overrides in which `run.dir`, the folder of what is asked for, is that of the sweep."""
    refuse_ignored(overrides, ("hydra.run.dir",))
    found = []
    for override in overrides:
        key, folder = key_and_value(override)
        if key in ("run.dir", "hydra.sweep.dir"):
            with readable_errors(loader, overrides, multirun=True):
                parsed = OverridesParser.create(loader).parse_override(override)
            if parsed.is_sweep_override():
                raise ConfigError(f"{override}: a sweep has one folder, and its jobs have theirs in it; name one")
            if parsed.value() in ("", None):
                raise ConfigError(f"{key}: is empty; name a folder ({COMMAND_LINE})")
            override = f"hydra.sweep.dir={folder}"
        found.append(override)
    return found


def _refuse_plugins(config: DictConfig) -> None:
    """Refuse Hydra's plugins for what embfit does itself: they would run jobs past its folders and its summary."""
    for part, remedy in {"sweeper": "sweep=grid or sweep=optuna", "launcher": "a launcher of embfit's"}.items():
        target = str(config.hydra[part]._target_)
        if not target.startswith("hydra._internal."):
            raise ConfigError(f"hydra/{part} chooses {target}, which embfit does not use; choose {remedy} instead")


def _compared(summary: Summary, space: Space, folder: Path) -> Summary:
    """Add how the best compares with the default, where anything but the seed is varied."""
    if summary.best is None or not summary.best.point:
        return summary
    metric = summary.objectives[0].name.rpartition(".")[2]
    return replace(
        summary, verdict=compare_with_default(summary.best, summary.candidates, space.default, folder, metric)
    )


def _tell(summary: Summary, folder: Path, loader: Loader, space: Space) -> None:
    """Print and write the summary, and the best point as an experiment."""
    from embfit.sweep.page import write_page

    summary.write(folder)
    page = write_page(summary, folder)
    print(summary.text())
    if best := summary.best:
        reason = f"{summary.score(best)}, the best of a sweep of {len(summary.results)} jobs."
        file = write_experiment(loader, space.overrides(best.point), reason, folder)
        print(f"best     {file}\nuse it   EMBFIT_CONFIG_PATH={file.parents[1]} python -m embfit experiment={file.stem}")
    print(f"summary  {page}", flush=True)


def _typed(config: DictConfig) -> list[str]:
    """Return the overrides, those that a file gives under `hydra.sweeper.params` first."""
    parameters = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    return [*(f"{key!s}={value}" for key, value in parameters.items()), *overrides_of(config)]


def _made(config: DictConfig, group: str, origins: Origins) -> Any:
    """Return what a choice of a group is made of, None where nothing is chosen."""
    if config.get(group) is None:
        return None
    values = OmegaConf.to_container(config[group], resolve=True)
    check_group({group: values}, group, origins)
    return make(values, group)


def _name(strategy: Sweep) -> str:
    """Return a strategy's class, by which a folder knows it again."""
    kind = type(strategy)
    return f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def _folder(config: DictConfig, origins: Origins, command: Sequence[str], strategy: str) -> Iterator[Path]:
    """Return the folder named, else that of the same sweep where it stopped, else a new one.

    Raises:
        ConfigError: a file gives a name.
    """
    folder = Path(str(config.hydra.sweep.dir))
    if any(key_and_value(str(text))[0] == "hydra.sweep.dir" for text in config.hydra.overrides.hydra):
        yield folder
    elif not origins.is_default("run.dir"):
        place = origins.find("run.dir")
        raise ConfigError(f"run.dir: would be ignored under -m; name the sweep's folder with run.dir=DIR ({place})")
    elif (stopped := unfinished(folder.parent.parent, command, strategy)) is not None:
        yield stopped
    else:
        with unique_folder(folder) as new:
            yield new
