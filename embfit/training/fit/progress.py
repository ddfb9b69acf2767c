"""Progress of training, in steps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl

from embfit.progress import Advance, progress


class TrainingProgress(pl.Callback):
    """Shows optimizer steps done, the loss, pairs per second and the time left.

    Args:
        steps: how many steps the whole run has.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._shown = ExitStack()
        self._advance: Advance | None = None
        self._measured: Mapping[str, float] = {}

    def watch(self, step: int, measured: Mapping[str, float]) -> None:
        """Update the line with a step's measurements."""
        self._measured = measured

    def _note(self) -> str:
        if not self._measured:
            return ""
        return f"loss {self._measured['train/loss']:.4f}, {self._measured['train/pairs_per_second']:.3g} pairs/s"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the progress line; a resumed run begins at the steps that it has taken."""
        shown = progress("training", self.steps, "steps", self._note, completed=trainer.global_step)
        self._advance = self._shown.enter_context(shown)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        if self._advance is not None:
            self._advance()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop showing."""
        self._shown.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self._shown.close()
