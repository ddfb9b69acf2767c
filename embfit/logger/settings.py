"""A run's name and configuration, as tracking servers get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from embfit.compose.value_origins import leaves

LOCAL = ("run", "resume", "store", "logger")  # groups that only concern this machine and are not sent


def run_name(run: str) -> str:
    """Return the name under which a server shows a run: the end of its folder, such as `finetune/DATE/TIME`."""
    parts = Path(run).absolute().parts
    return "/".join(parts[-2:] if parts[-1].isdigit() else parts[-3:])


def settings(run: str) -> dict[str, Any]:
    """Return the configuration that a run recorded, as flat keys; empty if there is none."""
    file = Path(run) / "config.yaml"
    if not file.is_file():
        return {}
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: value for key, value in leaves(tree) if key.split(".")[0] not in LOCAL}
