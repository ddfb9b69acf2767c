"""`resume=RUN_DIR`: continue an unfinished run under the configuration that it wrote down, and no other."""

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

SWEEP_RECORD = "sweep.json"  # in a sweep's folder, above those of its jobs


def resume_folder(overrides: Sequence[str]) -> Path | None:
    """Return the folder that a command line asks to resume, None when it asks for a new run.

    Raises:
        ConfigError: it asks for something else as well.
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
    """Read the configuration that a run wrote down, and where its values came from.

    A folder that was moved since is followed: values under the old `run.dir` are under the new one.

    Raises:
        ConfigError: there is no unfinished run in the folder, or it is one of another task, or was begun in another
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
            f"resume={folder} was begun in {directory}, where its relative paths are; resume it from there: {there}"
        )
    return values | {"resume": str(folder)}, origins


def _unquoted(value: str) -> str:
    """Return a path as it is meant: in quotes it is in Hydra's grammar, without them any sign may be in it."""
    if value[:1] in ("'", '"'):
        with suppress(HydraException):
            return str(OverridesParser.create().parse_override(f"resume={value}").value())
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename}"
    return first_line(error)


def recorded_config(folder: Path, now: str | None = None) -> dict[str, Any]:
    """Return the configuration that a run wrote down.

    A folder that was moved since is followed, alone or with the sweep that it is a job of.

    Args:
        folder: of the run.
        now: what `run.dir` is; None is the folder.

    Raises:
        OSError: it has written none.
        ValueError, KeyError, TypeError, yaml.YAMLError: it is no configuration.
    """
    values: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    sweep, above = values["run"].get("sweep"), folder.absolute().parent
    if sweep is not None and Path(values["run"]["dir"]).parent == Path(sweep) and (above / SWEEP_RECORD).is_file():
        values = relocated(values, sweep, str(above))
    old, new = str(values["run"]["dir"]), str(folder) if now is None else now
    return {key: relocated(value, old, new) for key, value in values.items()}


def holds_run_of(folder: Path, values: Mapping[str, Any]) -> bool:
    """Say whether a folder holds a run that was begun under this very configuration."""
    try:
        return recorded_config(folder, str(values["run"]["dir"])) == values
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return False


def changed_values(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """Return what differs between the configuration of the run in a folder and another one: `KEY was OLD, is NEW`.

    Args:
        folder: of the run; what has recorded no configuration differs in nothing.
        values: the other configuration, whose `run.dir` stands for the folder.
    """
    try:
        before = dict(leaves(recorded_config(folder, str(values["run"]["dir"]))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []
    now, absent = dict(leaves(values)), "absent"
    keys = [key for key in {**before, **now} if before.get(key, absent) != now.get(key, absent)]
    return [f"{key} was {before.get(key, absent)}, is {now.get(key, absent)}" for key in keys]


def recorded_task(folder: Path) -> str | None:
    """Return the `_target_` of the task of the run in a folder, None where there is no record of it.

    Its provenance has it, which is written first and stays until that of another run takes its place.
    """
    try:
        record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        return str(record["values"]["task._target_"]["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def recorded_directory(folder: Path) -> Path | None:
    """Return the working directory of a run's first attempt, None where it is not known."""
    try:
        return Path(json.loads((folder / "versions.json").read_text(encoding="utf-8"))["directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def started_elsewhere(folder: Path) -> Path | None:
    """Return the working directory of a run's first attempt if it is there and another one than now, else None."""
    directory = recorded_directory(folder)
    return None if directory is None or not directory.is_dir() or directory.samefile(".") else directory


def relocated(value: Any, old: str, new: str) -> Any:
    """Return values in which a folder, and what is in it, has another place."""
    if isinstance(value, dict):
        return {key: relocated(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [relocated(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value
