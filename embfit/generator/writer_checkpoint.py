"""Checkpoints of a query writer's training: a killed training resumes and ends with the same weights.

A checkpoint has twelve bytes for each trained weight (the weight and AdamW's two moments, in fp32), and four more once
the weights of an epoch are kept as the best. So it is written at intervals of time, and only the newest is kept.
"""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embfit.atomic_files import replacing
from embfit.errors import first_line, is_disk_full

log = logging.getLogger(__name__)

EVERY = 300.0  # seconds of training between two checkpoints
RATIO = 20.0  # the interval is at least this many times as long as writing a checkpoint


@dataclass(frozen=True)
class WriterCheckpoint:
    """Everything that the rest of a training depends on.

    Args:
        plan: identifies the training: its pairs, its settings, the trained weights' names and shapes.
        step: the number of optimizer steps taken.
        epoch: the epoch of the next batch, from 0.
        batch: the number of the next batch in its epoch; after the last one, the held-out queries are measured.
        weights: the trained weights by name.
        best: the weights of the best epoch so far; None if the initial weights are still the best.
        optimizer: the optimizer's state.
        schedule: the schedule's state.
        generators: the states of the random generators, by type of device.
        lowest: the lowest loss per token of held-out queries so far; infinite if none are held out.
        facts: the facts about the training so far, for the report.
    """

    plan: str
    step: int
    epoch: int
    batch: int
    weights: dict[str, Tensor]
    best: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    generators: dict[str, Tensor]
    lowest: float
    facts: dict[str, Any]


class WriterCheckpoints:
    """The newest checkpoint of a training, in a file.

    Args:
        path: the file; its folder is made with the first checkpoint.
        every: the shortest interval between two checkpoints, in seconds.
        ratio: the shortest interval, as a multiple of the time that writing a checkpoint takes.
    """

    def __init__(self, path: Path, every: float = EVERY, ratio: float = RATIO) -> None:
        self.path, self.every, self.ratio = path, every, ratio
        self._next = time.monotonic() + every

    @property
    def is_due(self) -> bool:
        """Whether it is time for another checkpoint."""
        return time.monotonic() >= self._next

    def read(self, plan: str) -> WriterCheckpoint | None:
        """Return the checkpoint of a training; None if there is none, or it cannot be read."""
        for left in self.path.parent.glob(f".{self.path.name}-*"):  # left by a process that was killed while it wrote
            left.unlink()
        if not self.path.is_file():
            return None
        try:
            found = WriterCheckpoint(**torch.load(self.path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s); the writer's training starts again", self.path, first_line(error))
            return None
        if found.plan != plan:
            log.warning("%s is of another training; the writer's training starts again", self.path)
            return None
        return found

    def write(self, checkpoint: WriterCheckpoint) -> None:
        """Replace the checkpoint; on a full disk, the one before stays and training continues."""
        began = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                torch.save(vars(checkpoint), temporary)
        except OSError as error:
            if not is_disk_full(error):
                raise
            log.warning(
                "%s: no space for a checkpoint of step %d; if it is interrupted, the writer's training resumes from %s",
                *(self.path, checkpoint.step, "the one before" if self.path.is_file() else "its first step"),
            )
        now = time.monotonic()
        self._next = now + max(self.every, self.ratio * (now - began))
