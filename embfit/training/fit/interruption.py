"""Ctrl-C during training: the current step is finished and a checkpoint is written first."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from embfit.training.fit.checkpoint import Checkpoints
from embfit.training.step.module import training_module

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # schedulers send SIGTERM


class Interruption(pl.Callback):
    """Ends training when a signal arrives, after the current step and its checkpoint; a second signal ends it at once.

    Args:
        checkpoints: write the checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside this context; a signal that the process already ignores stays ignored."""
        if threading.current_thread() is not threading.main_thread():  # another one gets none
            yield
            return
        process = os.getpid()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked or os.getpid() != process:  # a forked worker ends at once, as usual
                signal.signal(number, before[signal.Signals(number)])
                os.kill(os.getpid(), number)
                return
            self.asked = True
            log.warning("stopping after this step, when a checkpoint is written; interrupt again to stop at once")

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint and stop, if a signal has arrived; a validation that was due has already run."""
        if self.asked:
            self.checkpoints.write(trainer, training_module(pl_module), batch_idx)
            raise KeyboardInterrupt
