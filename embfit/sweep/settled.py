"""A composed job as plain values: what it runs under, wherever it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from embfit.compose.composition import resolve
from embfit.compose.loader import Loader
from embfit.compose.origins import Origins, leaves
from embfit.compose.provenance import trace
from embfit.sweep.folder import RECORD

SWEEP = "sweep"  # who wrote a value, in its provenance


def settled(loader: Loader, config: DictConfig) -> tuple[dict[str, Any], Origins, list[str]]:
    """Return the resolved values of the job that Hydra is at, where each was written, and its overrides.

    A job of a sweep gets its folder, the sweep's, and what looks at it while it trains.
    """
    hydra = HydraConfig.get()
    overrides = [str(override) for override in hydra.overrides.task]
    origins = trace(loader, overrides)
    if hydra.mode == RunMode.MULTIRUN:
        folder = Path(str(hydra.sweep.dir)).absolute()
        own = {"run": {"dir": str(folder / str(hydra.sweep.subdir)), "sweep": str(folder)}}
        _put(config, origins, own)
        pruning = _pruning(folder)
        if pruning and isinstance(config.get("trainer"), DictConfig):
            _put(config, origins, {"trainer": {"callbacks": {"pruning": {**pruning, "number": int(hydra.job.num)}}}})
    return resolve(config, origins), origins, overrides


def _put(config: DictConfig, origins: Origins, values: Mapping[str, Any]) -> None:
    with open_dict(config):
        config.merge_with(values)
    for key, value in leaves(values):
        origins.put(key, SWEEP, value)


def _pruning(folder: Path) -> Mapping[str, Any] | None:
    """Return what the sweep's record says of pruning; a sweeper other than embfit's keeps none."""
    file = folder / RECORD
    if not file.is_file():
        return None
    found: Mapping[str, Any] | None = json.loads(file.read_text(encoding="utf-8")).get("pruning")
    return found
