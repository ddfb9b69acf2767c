"""`resume=RUN_DIR`: go on with an unfinished run under the configuration that it wrote down, and no other."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from embfit.begun import begun_elsewhere, begun_with
from embfit.compose.origins import Origins
from embfit.errors import ConfigError, first_line
from embfit.run_folder import read_state


def resume_folder(overrides: Sequence[str]) -> Path | None:
    """Return the folder that a command line asks to go on with, None when it asks for a new run.

    Raises:
        ConfigError: it asks for something else as well.
    """
    named = [override.partition("=")[2].strip("'\"") for override in overrides if override.startswith("resume=")]
    if not named or named[-1] in ("null", ""):
        return None
    others = [override for override in overrides if not override.startswith(("resume=", "task="))]
    if others:
        raise ConfigError(
            f"resume={named[-1]} goes on under that run's own configuration; leave out {' '.join(others)}, or start a "
            "new run with it"
        )
    return Path(named[-1])


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
        task = override.partition("=")[2]
        if override.startswith("task=") and not str(values["task"]["_target_"]).endswith(f".{task}"):
            raise ConfigError(f"resume={folder} is a run of {values['task']['_target_']}, not task={task}")
    if directory := begun_elsewhere(folder):
        there = f"cd {shlex.quote(str(directory))} && python -m embfit resume={shlex.quote(str(folder.absolute()))}"
        raise ConfigError(
            f"resume={folder} was begun in {directory}, where its relative paths are; go on from there: {there}"
        )
    return values | {"resume": str(folder)}, origins


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename}"
    return first_line(error)
