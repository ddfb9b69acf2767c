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

SIZES = (50_000, 100_000)  # documents in further corpora to estimate for


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
        steps: the number of timed steps, without the first one, which warms up.
        step_seconds: the median time of a step.
        steps_per_epoch: the number of steps in an epoch of the training set.
        examples: the number of examples in the training set.
        peak_memory_gb: the peak memory during training, in 1e9 bytes.
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
        documents: the number of documents in the corpus; the number of training examples grows with it.
        embed_before: the seconds to embed the corpus with the base model, for mining and measuring.
        train: the seconds of training, without validations.
        embed_after: the seconds to embed the corpus again with the tuned model.
        total: the sum of the three; each later retraining takes as long.
        price: the price of `total`; None without a price per hour.
        embed_price: the price of `embed_after` alone; None without a price per hour.
        vector_bytes: the bytes of all float32 vectors.
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
        encoder: the encoder, which is trained in place.
        loss: the loss of the fine-tuning.
        training: the training's settings; epochs and early stopping are not used.
        trainer: makes Lightning's Trainer; its logs are discarded.
        training_set: the training examples.
        store: the store that keeps tokens.
        steps: the number of steps to time; one more step is made to warm up.
    """
    clock = Clock()
    settings = {**trainer.keywords, "callbacks": [*(trainer.keywords.get("callbacks") or []), clock], "logger": False}
    short = replace(training, steps=steps + 1, max_time=None, checkpoint_every=None)
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
    here: int,
    documents_per_second: float,
    dimensions: int,
    price_per_hour: float | None,
    sizes: Sequence[int] = SIZES,
) -> list[dict[str, Any]]:
    """Estimate the time and price for the collection and for larger ones with as many training examples per document.

    Args:
        trial: what a training step costs.
        training: the training's settings, which give its length: a number of epochs, which take more steps with more
            examples, or a fixed number of steps, and no longer than `max_time`.
        here: the number of documents in the collection.
        documents_per_second: the documents embedded per second.
        dimensions: the dimensions of a vector.
        price_per_hour: the machine's price per hour, in any currency; None if it is not known.
        sizes: the numbers of documents in further corpora.
    """
    found = []
    for documents in (here, *sizes):
        embedding = documents / documents_per_second
        steps = training.steps or training.epochs * trial.steps_per_epoch * documents / here
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
