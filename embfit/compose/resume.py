"""`resume=RUN_DIR`: go on with an unfinished run under the configuration that it wrote down, and no other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

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
        ConfigError: there is no unfinished run in the folder, or it is one of another task.
    """
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        origins = Origins.read(json.loads((folder / "provenance.json").read_text(encoding="utf-8")))
        old = str(values["run"]["dir"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"resume={folder} is not the folder of a run: {_reason(error)}") from error
    if read_state(folder) == "done":
        raise ConfigError(f"resume={folder} is finished already; for another run leave resume out")
    for override in overrides:
        task = override.partition("=")[2]
        if override.startswith("task=") and not str(values["task"]["_target_"]).endswith(f".{task}"):
            raise ConfigError(f"resume={folder} is a run of {values['task']['_target_']}, not task={task}")
    moved: dict[str, Any] = _moved(values, old, str(folder))
    return moved | {"resume": str(folder)}, origins


def was_begun(folder: Path, values: Mapping[str, Any]) -> bool:
    """Say whether a folder holds a run that was begun under this very configuration."""
    try:
        return bool(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) == values)
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename}"
    return first_line(error)
