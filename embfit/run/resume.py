"""`resume=RUN_DIR`: continues an unfinished run with its own recorded configuration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from embfit.compose.command_line import key_and_value, typed
from embfit.compose.value_origins import Origins, leaves
from embfit.errors import ConfigError, first_line
from embfit.run.record import read_state

SWEEP_RECORD = "sweep.json"  # a sweep's folder holds it, above the folders of its jobs


def resume_folder(overrides: Sequence[str]) -> Path | None:
    """Return the folder that a command line asks to resume; None for a new run.

    Raises:
        ConfigError: the command line has other overrides as well, or names no folder.
    """
    named = [value for key, value in map(key_and_value, overrides) if key == "resume"]
    if not named or named[-1] == "null":
        return None
    folder = _unquoted(named[-1])
    if not folder:
        raise ConfigError("resume= names no folder; name that of an unfinished run, or leave it out")
    others = [override for override in overrides if key_and_value(override)[0] not in ("resume", "task")]
    if others:
        raise ConfigError(
            f"resume={folder} continues under that run's own configuration; leave out {' '.join(others)}, or start a "
            "new run with it"
        )
    return Path(folder)


def read_run(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """Read a run's recorded configuration, and where its values came from.

    If the folder has been moved, values under the old `run.dir` are changed to the new one.

    Raises:
        ConfigError: the folder holds no unfinished run, or one of another task, or one that was started in another
            directory.
    """
    try:
        values = recorded_config(folder)
        origins = Origins.read(json.loads((folder / "provenance.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"resume={folder} is not the folder of a run: {_reason(error)}") from error
    if read_state(folder) == "done":
        raise ConfigError(f"resume={folder} is finished already; for another run leave resume out")
    for override in overrides:
        key, task = key_and_value(override)
        if key == "task" and not str(values["task"]["_target_"]).endswith(f".{task}"):
            raise ConfigError(f"resume={folder} is a run of {values['task']['_target_']}, not task={task}")
    if directory := started_elsewhere(folder):
        there = f"cd {shlex.quote(str(directory))} && python -m embfit {typed('resume', str(folder.absolute()))}"
        raise ConfigError(
            f"resume={folder} began in {directory}, where its relative paths start; resume it from there: {there}"
        )
    return values | {"resume": str(folder)}, origins


def _unquoted(value: str) -> str:
    """Return a path without the quotes of Hydra's grammar; an unquoted path may have any characters."""
    if value[:1] in ("'", '"'):
        with suppress(HydraException):
            return str(OverridesParser.create().parse_override(f"resume={value}").value())
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename}"
    return first_line(error)


def recorded_config(folder: Path, now: str | None = None) -> dict[str, Any]:
    """Return a run's recorded configuration.

    If the folder has been moved, alone or with its sweep, paths in it are changed to the new place.

    Args:
        folder: the run's folder.
        now: the current `run.dir`; None is the folder.

    Raises:
        OSError: the run has recorded none.
        ValueError, KeyError, TypeError, yaml.YAMLError: the file is not a configuration.
    """
    values: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    sweep, above = values["run"].get("sweep"), folder.absolute().parent
    if sweep is not None and Path(values["run"]["dir"]).parent == Path(sweep) and (above / SWEEP_RECORD).is_file():
        values = relocated(values, sweep, str(above))
    old, new = str(values["run"]["dir"]), str(folder) if now is None else now
    return {key: relocated(value, old, new) for key, value in values.items()}


def holds_run_of(folder: Path, values: Mapping[str, Any]) -> bool:
    """Return whether a folder holds a run with exactly this configuration."""
    try:
        return recorded_config(folder, str(values["run"]["dir"])) == values
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return False


def changed_values(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """Return the differences between a run's configuration and another one, as `KEY was OLD, is NEW`.

    Args:
        folder: the run's folder; without a recorded configuration there are no differences.
        values: the other configuration; its `run.dir` is taken to be the folder.
    """
    try:
        before = dict(leaves(recorded_config(folder, str(values["run"]["dir"]))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []
    now, absent = dict(leaves(values)), "absent"
    keys = [key for key in {**before, **now} if before.get(key, absent) != now.get(key, absent)]
    return [f"{key} was {before.get(key, absent)}, is {now.get(key, absent)}" for key in keys]


def recorded_task(folder: Path) -> str | None:
    """Return the `_target_` of the task of the run in a folder; None if it is not recorded.

    It is read from the provenance, which a run writes first and only another run overwrites.
    """
    try:
        record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        return str(record["values"]["task._target_"]["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def recorded_directory(folder: Path) -> Path | None:
    """Return the working directory of a run's first attempt; None if it is not known."""
    try:
        return Path(json.loads((folder / "versions.json").read_text(encoding="utf-8"))["directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def started_elsewhere(folder: Path) -> Path | None:
    """Return the working directory of a run's first attempt if it exists and is not the current one, else None."""
    directory = recorded_directory(folder)
    return None if directory is None or not directory.is_dir() or directory.samefile(".") else directory


def relocated(value: Any, old: str, new: str) -> Any:
    """Return values in which the path of a folder, and paths inside it, are replaced."""
    if isinstance(value, dict):
        return {key: relocated(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [relocated(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value
