"""What a tracking server is told of a run: its name, and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from embfit.compose.origins import leaves

NOT_TOLD = ("run", "resume", "store", "logger")  # of one machine


def run_name(run: str) -> str:
    """Return what a server shows a run as: the end of its folder, `finetune/2026-03-01/10-00-00` or `10-00-00/3`."""
    parts = Path(run).absolute().parts
    return "/".join(parts[-2:] if parts[-1].isdigit() else parts[-3:])


def settings(run: str) -> dict[str, Any]:
    """Return the configuration that a run wrote down, flat; nothing where there is none."""
    file = Path(run) / "config.yaml"
    if not file.is_file():
        return {}
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: value for key, value in leaves(tree) if key.split(".")[0] not in NOT_TOLD}
