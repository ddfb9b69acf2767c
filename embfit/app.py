"""Compose, check and run one task; an error that a user can cause becomes a short message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from embfit.command import command
from embfit.compose.command_line import CommandLine, flags, key_and_value, parse, refuse_ignored, version_line
from embfit.compose.composition import check_composed, compose, hydra_session, overrides_of, resolve_all
from embfit.compose.explain import value_table
from embfit.compose.help import about, overview
from embfit.compose.hydra_errors import readable_errors
from embfit.compose.loader import CONFIG, Loader, make_loader
from embfit.compose.preflight import check, check_keys
from embfit.errors import ConfigError
from embfit.launcher.distributed import on_first_rank
from embfit.run.console import accept_any_character, listen, report
from embfit.run.process import perform, termination_interrupts
from embfit.run.resume import read_run, resume_folder


def main(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.

    Nothing is raised; errors are shown on stderr.
    """
    accept_any_character()
    try:
        with termination_interrupts():
            if run := command(arguments[0]) if arguments else None:
                run(arguments[1:])
            else:
                line = parse(arguments)
                on_first_rank(lambda: _command(line))
            sys.stdout.flush()
    except BrokenPipeError:  # the reader (`| head`) has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        return report(error).exit_code
    return 0


def _command(line: CommandLine) -> None:
    if line.action == "version":
        print(version_line())
        return
    loader = make_loader()
    if line.action == "help":
        chosen = next((text for text in line.overrides if key_and_value(text)[0] == line.about), line.about)
        print(overview(loader, flags()) if line.about == "all" else about(loader, chosen))
        return
    if line.action in ("run", "multirun") and (folder := resume_folder(line.overrides)):
        _resume(loader, folder, line)
        return
    if line.action in ("run", "multirun"):
        listen()
    with hydra_session(loader) as hydra:
        if line.action == "show":
            _show(hydra, compose(loader, line.overrides), line)
        elif line.action == "explain":
            _explain(loader, line)
        elif line.action == "completion":
            with readable_errors(loader, ()):
                hydra.shell_completion(CONFIG, line.overrides)
        elif line.action == "info":
            compose(loader, line.overrides)
            hydra.show_info(line.about, CONFIG, line.overrides)
        elif line.action == "multirun" or (config := _composed_run(hydra, loader, line.overrides)) is None:
            from embfit.sweep.multirun import sweep  # PyTorch and the other imports of sweeps take seconds

            sweep(loader, line.overrides)
        else:
            _run(loader, config, line.overrides)


def _show(hydra: Hydra, config: DictConfig, line: CommandLine) -> None:
    if line.package not in (None, "_global_") and OmegaConf.select(config, str(line.package)) is None:
        raise ConfigError(f"there is nothing at --package {line.package}; --cfg {line.show} shows all keys")
    hydra.show_cfg(CONFIG, line.overrides, line.show, line.package, line.resolve)


def _explain(loader: Loader, line: CommandLine) -> None:
    values, origins = resolve_all(loader, line.overrides)
    print(value_table(origins.record(values), line.package or ""), flush=True)
    check_keys(values, origins, loader.groups())


def _composed_run(hydra: Hydra, loader: Loader, overrides: list[str]) -> DictConfig | None:
    """Compose one run; None if a file asks for a sweep, whose values of an override need not compose as one run's."""
    try:
        config = compose(loader, overrides)
    except ConfigError:
        if hydra.get_mode(CONFIG, overrides) == RunMode.MULTIRUN:
            return None
        raise
    return None if config.hydra.mode == RunMode.MULTIRUN else config


def _run(loader: Loader, config: DictConfig, overrides: list[str]) -> None:
    refuse_ignored(overrides, ("hydra.run.dir", "hydra.sweep.dir"))
    found = check_composed(loader, config, overrides)
    perform(found.values, found.origins, overrides_of(config))


def _resume(loader: Loader, folder: Path, line: CommandLine) -> None:
    if line.action == "multirun":
        raise ConfigError("resume continues one run; leave out -m")
    values, origins = read_run(folder, line.overrides)
    check(values, origins, loader.groups())
    perform(values, origins, line.overrides, resuming=True)
