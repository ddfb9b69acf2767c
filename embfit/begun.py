"""What a run folder says it was begun with: a configuration, and the directory that relative paths are read from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SWEEP_RECORD = "sweep.json"  # in a sweep's folder, above those of its jobs


def begun_with(folder: Path, now: str | None = None) -> dict[str, Any]:
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
        values = moved(values, sweep, str(above))
    old, new = str(values["run"]["dir"]), str(folder) if now is None else now
    return {key: moved(value, old, new) for key, value in values.items()}


def was_begun(folder: Path, values: Mapping[str, Any]) -> bool:
    """Say whether a folder holds a run that was begun under this very configuration."""
    try:
        return begun_with(folder, str(values["run"]["dir"])) == values
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return False


def begun_in(folder: Path) -> Path | None:
    """Return the working directory of a run's first attempt, None where it is not known."""
    try:
        return Path(json.loads((folder / "versions.json").read_text(encoding="utf-8"))["directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begun_elsewhere(folder: Path) -> Path | None:
    """Return the working directory of a run's first attempt if it is there and another one than now, else None."""
    directory = begun_in(folder)
    return None if directory is None or not directory.is_dir() or directory.samefile(".") else directory


def moved(value: Any, old: str, new: str) -> Any:
    """Return values in which a folder, and what is in it, has another place."""
    if isinstance(value, dict):
        return {key: moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value
