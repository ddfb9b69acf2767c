"""Ctrl-C during training: the current step is finished and a checkpoint is written first."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl

from embfit.graceful_stop import GracefulStop
from embfit.training.fit.checkpoint import Checkpoints
from embfit.training.step.module import training_module


class Interruption(pl.Callback):
    """Ends training when a signal arrives, after the current step and its checkpoint; a second signal ends it at once.

    Args:
        checkpoints: write the checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self._stop = GracefulStop(
            "stopping after this step, when a checkpoint is written; interrupt again to stop at once"
        )

    @property
    def asked(self) -> bool:
        """Whether training was asked to end."""
        return self._stop.asked

    def listening(self) -> AbstractContextManager[None]:
        """Handle signals inside this context."""
        return self._stop.listening()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint and stop, if a signal has arrived; a validation that was due has already run."""
        if self.asked:
            self.checkpoints.write(trainer, training_module(pl_module), batch_idx)
            raise KeyboardInterrupt
