"""Which model a run reports, whatever was begun, failed and interrupted in its folder before."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embfit.errors import ConfigError
from embfit.run.folder import RunFolder
from embfit.task.train_once import train_once


@dataclass
class Facts:
    """What a training tells of itself, in brief."""

    lr: float


def train(folder: Path, lr: float, interrupted: bool = False, **how: bool) -> Mapping[str, Any]:
    """Train in a folder and fail in the evaluation after it; return the facts of the model that would be evaluated."""

    def fit(checkpoints: Path) -> Facts:
        (checkpoints / "step.pt").touch()
        if interrupted:
            raise KeyboardInterrupt
        return Facts(lr)

    config = {
        "task": {"_target_": "embfit.task.finetune.finetune"},
        "training": {"lr": lr},
        "run": {"dir": str(folder)},
    }
    run = RunFolder(folder, config, {}, **how).__enter__()
    try:
        return train_once(run, fit, lambda: (folder / "model").mkdir())[0]
    finally:
        run.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_a_run_does_not_report_the_model_of_another_configuration(tmp_path):
    assert train(tmp_path, 1e-5) == {"lr": 1e-5}
    with pytest.raises(ConfigError, match="holds an unfinished run of another configuration"):
        train(tmp_path, 0.9, interrupted=True)
    assert train(tmp_path, 1e-5) == {"lr": 1e-5}  # the first one is resumed, and trains no more
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 0.9, interrupted=True, overwrite=True)  # as a job of a sweep does
    assert train(tmp_path, 0.9, resuming=True) == {"lr": 0.9}
