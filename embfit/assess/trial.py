"""A few timed training steps, and an estimate of what a whole fine-tuning takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import nn

from embfit.assess.candidates import BYTES
from embfit.model import Encoder
from embfit.records import TrainingSet
from embfit.store import Store
from embfit.training import Training
from embfit.training.fit.plan import seconds


class Clock(pl.Callback):
    """Records when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the time."""
        self.ends.append(time.monotonic())


@dataclass(frozen=True)
class Trial:
    """What a training step costs.

    Args:
        steps: how many steps were timed; the first one, which warms up, does not count.
        step_seconds: how long the median step took.
        steps_per_epoch: how many steps an epoch of the training set takes.
        examples: how many examples the training set has.
        peak_memory_gb: how much memory training took at its peak, in 1e9 bytes.
    """

    steps: int
    step_seconds: float
    steps_per_epoch: float
    examples: int
    peak_memory_gb: float


@dataclass(frozen=True)
class Estimate:
    """What a fine-tuning takes for a corpus of some size: time, and money if a price is known.

    Args:
        documents: how many documents the corpus has; the number of training examples grows with it.
        embed_before: how many seconds the base model takes to embed the corpus, for mining and measuring.
        train: how many seconds training takes; validations do not count.
        embed_after: how many seconds the tuned model takes to embed the corpus again.
        total: how many seconds these three take together, as each later retraining does.
        price: what `total` costs; None if no price per hour is known.
        embed_price: what `embed_after` alone costs; None if no price per hour is known.
        vector_bytes: how many bytes all float32 vectors take.
    """

    documents: int
    embed_before: float
    train: float
    embed_after: float
    total: float
    price: float | None
    embed_price: float | None
    vector_bytes: int


def time_training(
    encoder: Encoder,
    loss: nn.Module,
    training: Training,
    trainer: partial[pl.Trainer],
    training_set: TrainingSet,
    store: Store,
    steps: int,
) -> Trial:
    """Train for a few steps. The encoder's weights change, so it must not be used for anything else afterwards.

    Args:
        encoder: is trained in place.
        loss: is the one that the fine-tuning would use.
        training: gives the settings; its length is not used, and nothing is mined again.
        trainer: makes Lightning's Trainer, whose logs are discarded.
        training_set: holds the examples to train on.
        store: keeps the tokens.
        steps: how many steps are timed; one more warms up.
    """
    clock = Clock()
    settings = {**trainer.keywords, "callbacks": [*(trainer.keywords.get("callbacks") or []), clock], "logger": False}
    short = replace(training, steps=steps + 1, max_time=None, checkpoint_every=None, remine_every=None)
    with tempfile.TemporaryDirectory(prefix="embfit-trial-") as folder:
        fit = short.fit(encoder, loss, training_set, None, partial(trainer.func, **settings), store, Path(folder))
    return Trial(
        steps=steps,
        step_seconds=float(np.median(np.diff(clock.ends))),
        steps_per_epoch=fit.steps / fit.epochs,
        examples=len(training_set),
        peak_memory_gb=fit.peak_memory_gb,
    )


def estimate(
    trial: Trial,
    training: Training,
    timed_on: int,
    documents_per_second: float,
    dimensions: int,
    price_per_hour: float | None,
    sizes: Sequence[int],
) -> list[dict[str, Any]]:
    """Estimate the time and price for corpora of several sizes with as many training examples per document.

    Args:
        trial: says what a training step costs.
        training: says how long training is: a number of epochs, which take more steps with more examples, or a fixed
            number of steps, and no longer than `max_time`.
        timed_on: how many documents the trial's training set is about.
        documents_per_second: how many documents are embedded per second.
        dimensions: how many dimensions a vector has.
        price_per_hour: what the machine costs per hour, in any currency; None if it is not known.
        sizes: how many documents each corpus has.
    """
    found = []
    for documents in sizes:
        embedding = documents / documents_per_second
        steps = training.steps or training.epochs * trial.steps_per_epoch * documents / timed_on
        train = steps * trial.step_seconds
        if training.max_time is not None:
            train = min(train, seconds(training.max_time))
        total = 2 * embedding + train
        rate = None if price_per_hour is None else price_per_hour / 3600
        one = Estimate(
            documents=documents,
            embed_before=embedding,
            train=train,
            embed_after=embedding,
            total=total,
            price=None if rate is None else total * rate,
            embed_price=None if rate is None else embedding * rate,
            vector_bytes=documents * dimensions * BYTES,
        )
        found.append(asdict(one))
    return found
