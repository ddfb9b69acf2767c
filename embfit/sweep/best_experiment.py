"""The best job of a sweep, written as an experiment that anyone can choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from embfit.atomic_files import write_text
from embfit.compose.loader import Loader
from embfit.compose.provenance import plain

NAME = "best"


def write_experiment(loader: Loader, overrides: Sequence[str], sentence: str, folder: Path) -> Path:
    """Write `conf/experiment/best.yaml` into a folder; `EMBFIT_CONFIG_PATH` can then name the folder's `conf`.

    Args:
        loader: the loader, which knows which keys are groups.
        overrides: the overrides of the best job.
        sentence: the file's second line, which says what the job is the best of.
        folder: the sweep's folder.
    """
    builds_on: list[str] = []
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    by_hand: list[str] = []
    for override in OverridesParser.create(loader).parse_overrides(list(overrides)):
        key, value = override.key_or_group, plain(override.value())
        if override.is_delete() or override.is_add() or override.is_force_add():
            by_hand.append(str(override.input_line))
        elif key == "experiment":
            builds_on += value if isinstance(value, list) else [value] if value else []
        elif loader.repository.group_exists(key) and not isinstance(value, dict):
            defaults.append({f"override /{override.get_key_element()}": value})
        else:
            _put(values, key.split("."), value)
    header = ["# @package _global_", f"# {sentence}", f"# python -m embfit experiment={NAME}"]
    header += [f"# and on the command line, since no file can say it: {' '.join(by_hand)}"] if by_hand else []
    tree = {"defaults": [*builds_on, *defaults, "_self_"], **values}
    file = folder / "conf" / "experiment" / f"{NAME}.yaml"  # jobs' folders beside it would be read as groups
    file.parent.mkdir(parents=True, exist_ok=True)
    body = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    write_text(file, "\n".join(header) + "\n" + body)
    return file


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value
