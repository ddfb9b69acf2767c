"""Ctrl-C during training: the step under way is finished and written down first."""

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

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a scheduler sends the second


class Interruption(pl.Callback):
    """Ends training after the step in which it was asked to, once that is in a checkpoint; asked again, at once.

    Args:
        checkpoints: write where training stands.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for signals inside this context; one that the process was started to ignore stays ignored."""
        if threading.current_thread() is not threading.main_thread():  # another one gets none
            yield
            return
        process = os.getpid()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked or os.getpid() != process:  # a worker that was forked from here ends as it always does
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
        """Write and stop, if asked to; a validation that was due has been made."""
        if self.asked:
            self.checkpoints.write(trainer, training_module(pl_module), batch_idx)
            raise KeyboardInterrupt
