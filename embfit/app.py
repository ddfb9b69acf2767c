"""Compose → check → run one task; every error that a user can cause is one short message and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from embfit.command import command
from embfit.compose.command_line import CommandLine, flags, parse, version_line
from embfit.compose.composition import CheckingLoader, check_composed, compose, described, hydra_session
from embfit.compose.explain import explained
from embfit.compose.help import about, overview
from embfit.compose.loader import CONFIG, Loader, make_loader
from embfit.compose.preflight import check
from embfit.compose.resume import read_run, resume_folder, was_begun
from embfit.compose.value_table import value_table
from embfit.console import listen, show_error
from embfit.errors import ConfigError, Pruned
from embfit.outcome import outcome
from embfit.process import as_launched, perform, termination_interrupts
from embfit.sweep.multirun import sweep
from embfit.sweep.settled import settled

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.

    Nothing is raised; errors are shown on stderr.
    """
    try:
        with termination_interrupts():
            if run := command(arguments[0]) if arguments else None:
                run(arguments[1:])
            else:
                line = parse(arguments)
                as_launched(lambda: _command(line))
            sys.stdout.flush()
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        return _report(error)
    return 0


def _command(line: CommandLine) -> None:
    if line.action == "version":
        print(version_line())
        return
    loader = make_loader(CheckingLoader)
    if line.action == "help":
        print(overview(loader, flags()) if line.about == "all" else about(loader, line.about))
        return
    if line.action in ("run", "multirun") and (folder := resume_folder(line.overrides)):
        _resume(loader, folder, line)
        return
    with hydra_session(loader) as hydra:
        if line.action == "show":
            _show(hydra, compose(loader, line.overrides), line)
        elif line.action == "explain":
            _explain(loader, line)
        elif line.action == "completion":
            with explained(loader, ()):
                hydra.shell_completion(CONFIG, line.overrides)
        elif line.action == "info":
            compose(loader, line.overrides)
            hydra.show_info(line.about, CONFIG, line.overrides)
        elif line.action == "multirun" or hydra.get_mode(CONFIG, line.overrides) == RunMode.MULTIRUN:
            _multirun(hydra, loader, line.overrides)
        else:
            _run(loader, line.overrides)


def _show(hydra: Hydra, config: DictConfig, line: CommandLine) -> None:
    if line.package not in (None, "_global_") and OmegaConf.select(config, str(line.package)) is None:
        raise ConfigError(f"there is nothing at --package {line.package}; --cfg {line.show} shows all keys")
    hydra.show_cfg(CONFIG, line.overrides, line.show, line.package, line.resolve)


def _explain(loader: Loader, line: CommandLine) -> None:
    values, origins = described(loader, line.overrides)
    print(value_table(origins.record(values), line.package or ""))


def _run(loader: Loader, overrides: list[str]) -> None:
    config = compose(loader, [*overrides, "hydra.mode=RUN"])
    check_composed(loader, config, overrides)
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=CONFIG)
    done = run_job(
        task_function=_job,
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=HydraContext(config_loader=loader, callbacks=callbacks),
    )
    callbacks.on_run_end(config=config, config_name=CONFIG, job_return=done)
    if done.status is JobStatus.FAILED:
        raise done._return_value  # its property would print Hydra's words first


def _multirun(hydra: Hydra, loader: Loader, overrides: list[str]) -> None:
    """Run a sweep to its end, also when jobs of it fail.

    Raises:
        UserError: how many of its jobs failed; each has told its own error.
    """
    if any(override.startswith("run.dir=") for override in overrides):
        raise ConfigError("run.dir is one run's folder; name the folder of a sweep with hydra.sweep.dir=DIR")
    listen()
    overrides = [*overrides, "hydra.mode=MULTIRUN"]
    config = compose(loader, overrides, multirun=True)
    if not str(config.hydra.sweeper._target_).startswith("hydra._internal."):
        hydra.multirun(CONFIG, _job_of_a_sweep, overrides)  # a sweeper that the user installed
        return
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=CONFIG)
    context = HydraContext(config_loader=loader, callbacks=callbacks)
    sweep(config, loader, lambda: Plugins.instance().instantiate_launcher(context, _job_of_a_sweep, config))
    callbacks.on_multirun_end(config=config, config_name=CONFIG)


def _job_of_a_sweep(config: DictConfig) -> None:
    """Run one job and show its error, which the sweep outlives."""
    try:
        _job(config)
    except Pruned as end:
        log.info("job %d is pruned: %s", HydraConfig.get().job.num, end)
    except Exception as error:
        job = HydraConfig.get()
        _report(error, f"job {job.job.num} ({', '.join(job.overrides.task)}): ")
        raise


def _job(config: DictConfig) -> None:
    """Run one composed job, in this process or in one that a launcher started."""
    values, origins, overrides = settled(make_loader(), config)
    resuming = HydraConfig.get().mode == RunMode.MULTIRUN and was_begun(Path(values["run"]["dir"]), values)
    perform(values, origins, overrides, resuming)


def _resume(loader: Loader, folder: Path, line: CommandLine) -> None:
    if line.action == "multirun":
        raise ConfigError("resume goes on with one run; leave out -m")
    values, origins = read_run(folder, line.overrides)
    check(values, origins, loader.groups())
    perform(values, origins, line.overrides, resuming=True)


def _report(error: BaseException, prefix: str = "") -> int:
    """Show an error to the user; return the exit code that it means."""
    end = outcome(error)
    if end.message:
        where = getattr(error, "__notes__", [] if end.expected else ["EMBFIT_FULL_ERROR=1 shows the traceback"])
        show_error("\n  ".join([prefix + end.message, *where[-1:]]), error)
    return end.exit_code
