"""Trains a model once, even if the run is interrupted after the training and resumed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embfit.atomic_files import write_text
from embfit.run.folder import RunFolder
from embfit.training import Fit

COSTLY = ("checkpoints/step.pt", "checkpoints/*/step.pt", "training.json", "training-*.json")
TRAINED = ("checkpoints", "training.json", "training-*.json", "model")
"""What training leaves in a run folder, and what of it takes hours."""

log = logging.getLogger(__name__)


def train_once(
    run: RunFolder, fit: Callable[[Path], Fit], save: Callable[[], None], name: str | None = None
) -> tuple[dict[str, Any], bool]:
    """Train and save a model, unless an interrupted run had done so already.

    Args:
        run: the run, whose folder keeps the record.
        fit: trains the model, with checkpoints in the given folder.
        save: saves the model.
        name: distinguishes several trainings of one run.

    Returns:
        The record of the training, and whether it was done earlier: then only the disk has the model.
    """
    record = run.dir / ("training.json" if name is None else f"training-{name}.json")
    if run.resuming and record.is_file():
        log.info("%s was trained before the interruption", "the model" if name is None else name)
        return json.loads(record.read_text(encoding="utf-8")), True
    checkpoints = run.dir / "checkpoints"
    own = checkpoints if name is None else checkpoints / name
    own.mkdir(parents=True, exist_ok=True)
    facts = asdict(fit(own))
    save()
    write_text(record, json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(checkpoints)  # the model has the kept weights now
    return facts, False
