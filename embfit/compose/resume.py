"""`resume=RUN_DIR`: go on with an unfinished run under the configuration that it wrote down, and no other."""

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

from embfit.begun import begun_elsewhere, begun_with
from embfit.compose.command_line import key_and_value
from embfit.compose.origins import COMMAND_LINE, Origins
from embfit.compose.problems import Problem, refuse
from embfit.errors import ConfigError, first_line
from embfit.run_folder import read_state


def resume_folder(overrides: Sequence[str]) -> Path | None:
    """Return the folder that a command line asks to go on with, None when it asks for a new run.

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
            f"resume={folder} goes on under that run's own configuration; leave out {' '.join(others)}, or start a "
            "new run with it"
        )
    return Path(folder)


def refuse_in_files(values: Mapping[str, Any], origins: Origins) -> None:
    """Refuse a `resume` that a file gives: whether to go on is for the command line to say.

    Raises:
        ConfigError: a file gives one.
    """
    folder, place = values.get("resume"), origins.find("resume")
    if folder is not None and place != COMMAND_LINE:
        refuse([Problem("resume", f"{folder} would be ignored; type it on the command line: resume={folder}", place)])


def read_run(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """Read the configuration that a run wrote down, and where its values came from.

    A folder that was moved since is followed: values under the old `run.dir` are under the new one.

    Raises:
        ConfigError: there is no unfinished run in the folder, or it is one of another task, or was begun in another
            directory.
    """
    try:
        values = begun_with(folder)
        origins = Origins.read(json.loads((folder / "provenance.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"resume={folder} is not the folder of a run: {_reason(error)}") from error
    if read_state(folder) == "done":
        raise ConfigError(f"resume={folder} is finished already; for another run leave resume out")
    for override in overrides:
        key, task = key_and_value(override)
        if key == "task" and not str(values["task"]["_target_"]).endswith(f".{task}"):
            raise ConfigError(f"resume={folder} is a run of {values['task']['_target_']}, not task={task}")
    if directory := begun_elsewhere(folder):
        there = f"cd {shlex.quote(str(directory))} && python -m embfit resume={shlex.quote(str(folder.absolute()))}"
        raise ConfigError(
            f"resume={folder} was begun in {directory}, where its relative paths are; go on from there: {there}"
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
