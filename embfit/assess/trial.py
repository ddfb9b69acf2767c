"""A few training steps against the clock, and what a whole fine-tuning would take from there."""

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

SIZES = (50_000, 100_000)  # documents, beside the collection's own


class Clock(pl.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time."""
        self.ends.append(time.monotonic())


@dataclass(frozen=True)
class Trial:
    """What a step costs.

    Args:
        steps: that were timed; the first one, which warms up, is not among them.
        step_seconds: median of them.
        steps_per_epoch: of the training set.
        examples: in it.
        peak_memory_gb: while training, in 1e9 bytes.
    """

    steps: int
    step_seconds: float
    steps_per_epoch: float
    examples: int
    peak_memory_gb: float


@dataclass(frozen=True)
class Estimate:
    """What one fine-tuning takes for so many documents: seconds, and money where a price is known.

    Args:
        documents: in the corpus; training examples grow with them.
        embed_before: seconds of embedding the corpus with the base model, to mine and to measure.
        train: seconds of training, validations left out.
        embed_after: seconds of embedding it anew with the tuned model.
        total: of the three; each later retraining takes as long.
        price: of `total`; None without a price per hour.
        embed_price: of `embed_after` alone.
        vector_bytes: of all float32 vectors.
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
    """Train for a few steps; the encoder is spoilt for anything else afterwards.

    Args:
        encoder: trained in place.
        loss: as a fine-tuning would use it.
        training: its settings; epochs and early stopping play no part.
        trainer: Lightning's Trainer; what it logs is thrown away.
        training_set: what the miner made.
        store: keeps tokens.
        steps: timed; one more is made to warm up.
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
    """Extrapolate to the collection and to larger ones, with as many training examples for each document as here.

    Args:
        trial: what a step costs.
        training: says how long: for so many epochs, which take more steps with more examples, or for so many steps,
            which do not; no longer than `max_time`.
        here: documents of the collection.
        documents_per_second: embedded.
        dimensions: of a vector.
        price_per_hour: of the machine, in any currency.
        sizes: of further corpora.
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
