"""Measures how long a training takes, and ends it when it passes a limit."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl

log = logging.getLogger(__name__)


class TimeLimit(pl.Callback):
    """Measures the time since this object was made, and ends the training after the step that passes a limit.

    Args:
        limit: how many seconds training may take; None only measures.
        spent: how many seconds an interrupted run has trained before.
    """

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit = math.inf if limit is None else limit
        if limit is not None:
            log.info("training ends after %s at the latest", timedelta(seconds=round(limit)))
        self.reached = False
        self._started = time.monotonic() - spent

    def elapsed(self) -> float:
        """Return the seconds so far."""
        return time.monotonic() - self._started

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop when the time is over; the validation that follows measures the final weights."""
        if self.elapsed() >= self.limit and trainer.global_step < trainer.max_steps:
            self.reached = trainer.should_stop = True
            log.warning(
                "training.max_time is over: stopping after step %d of %d", trainer.global_step, trainer.max_steps
            )
