"""What a fine-tuning costs: a few steps are trained as it would train them, and the rest is extrapolated."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from embfit.assess.candidates import ModelCandidate
from embfit.evaluator.systems import EvaluationContext
from embfit.miner.miner import Mines
from embfit.records import Collection
from embfit.training import Training

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)

LARGER = (50_000, 100_000)  # documents in further corpora to estimate for


def training_cost(
    context: EvaluationContext,
    *,
    miner: Mines,
    loss: nn.Module,
    training: Training,
    trainer: partial[pl.Trainer],
    resamples: int,
    steps: int,
    base: ModelCandidate,
    price_per_hour: float | None,
    sizes: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Mine as for a fine-tuning, train for a few steps, extrapolate their time and measure their gain on dev.

    Args:
        context: has the model, and the collection whose training queries the trial trains on.
        miner: mines for the trial.
        loss: the loss of the trial.
        training: the settings of the fine-tuning.
        trainer: makes Lightning's Trainer from the arguments that training adds.
        resamples: the number of resamples for the gain's interval.
        steps: how many steps the trial trains at most; 0 makes no trial.
        base: the speed and size of the model.
        price_per_hour: the price of an hour of this machine; None if it is not known.
        sizes: how many documents each corpus has that a fine-tuning's time is estimated for; None for this collection,
            50,000 and 100,000.

    Returns:
        `examples`: the number of training queries. `trial`, `estimates` and `gain`: what `time_training`, `estimate`
        and `trial_gain` return; without a trial None, an empty list and None. With a trial, `steps` and `max_time`: the
        limits of the training.
    """
    from embfit.assess.trial import estimate, time_training  # Lightning takes seconds to import
    from embfit.assess.trial_gain import trial_gain

    examples = _training_queries(context.collection)
    if not steps or not examples:
        log.info("no trial: %s", "task.trial_steps=0" if not steps else "there is no train split")
        return {"examples": examples, "trial": None, "estimates": [], "gain": None}
    training_set = miner.mine(context.collection, context.encoder, context.store)
    model = context.model.by_pytorch  # only PyTorch trains
    encoder = model.load(context.devices[0])
    planned = training.steps or training.epochs * math.ceil(len(training_set) / training.batch_size)
    timed = max(1, min(steps, planned - 1))  # one more step for warming up
    with model.trainable(encoder):  # the same weights as a fine-tuning: all, the upper layers, or an adapter
        trial = time_training(encoder, loss, training, trainer, training_set, context.store, timed)
    timed_on = len(context.collection.corpus)
    rate, dimensions = base.documents_per_second, base.dimensions
    return {
        "examples": examples,
        "steps": training.steps,
        "max_time": training.max_time,
        "trial": asdict(trial),
        "estimates": estimate(
            trial, training, timed_on, rate, dimensions, price_per_hour, sizes or (timed_on, *LARGER)
        ),
        "gain": trial_gain(context.encoder, encoder, context.collection, context.judging, resamples),
    }


def _training_queries(collection: Collection) -> int:
    return sum(any(grade >= 1 for grade in grades.values()) for grades in collection.qrels.get("train", {}).values())
