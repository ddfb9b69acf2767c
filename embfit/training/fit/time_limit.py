"""How long a training takes, and the end of it when that is too long."""

from __future__ import annotations

import logging
import math
import re
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl

log = logging.getLogger(__name__)

MOST_MINUTES = 1440  # YAML reads 12:00:00 without quotes as 43200, and 30:00 as 1800


class TimeLimit(pl.Callback):
    """Counts seconds from its making on, and ends the training after the step in which a limit is passed.

    Args:
        limit: how many seconds training may take; None only counts them.
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
        """Stop when the time is over; validation, which comes after, measures what was reached."""
        if self.elapsed() >= self.limit and trainer.global_step < trainer.max_steps:
            self.reached = trainer.should_stop = True
            log.warning(
                "training.max_time is over: stopping after step %d of %d", trainer.global_step, trainer.max_steps
            )


def seconds(time_given: str | float) -> float:
    """Return the seconds of `"HH:MM:SS"`, `"DD:HH:MM:SS"` or a number of minutes.

    Raises:
        ValueError: it is neither, not above zero, or may be a time whose quotes were forgotten.
    """
    if isinstance(time_given, str):
        if not re.fullmatch(r"(\d+:)?\d+:\d\d:\d\d", time_given):
            raise ValueError(
                f'max_time={time_given} is no time; write "HH:MM:SS", "DD:HH:MM:SS" or a number of minutes'
            )
        days, hours, minutes, rest = ([0] * 4 + [int(part) for part in time_given.split(":")])[-4:]
        found = ((days * 24 + hours) * 60 + minutes) * 60.0 + rest
    elif time_given >= MOST_MINUTES:
        raise ValueError(
            f"max_time={time_given} would be minutes, of which {MOST_MINUTES} are too many; quote a time "
            '("12:00:00", as YAML reads 12:00:00 as 43200), and write more than a day as one, too'
        )
    else:
        found = time_given * 60.0
    if found <= 0:
        raise ValueError(f"max_time={time_given} leaves no time; give more, or null for no limit")
    return found
