"""`training=lists`: how long, how large, how fast a cross-encoder is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import pytorch_lightning as pl
from pydantic import Field
from torch import nn

from embfit.errors import ConfigError, UserError
from embfit.model import CrossEncoder
from embfit.model.precision import Precision, default_token_budget
from embfit.records import TrainingSet
from embfit.store import digest
from embfit.training.batches import Examples
from embfit.training.fitting import Course, Fit, fit_module
from embfit.training.grouping import Random
from embfit.training.layout import plan
from embfit.training.lists import Lists
from embfit.training.micro_batches import Portions
from embfit.training.optimization import Optimization
from embfit.training.schedule import Schedule
from embfit.training.time_limit import seconds
from embfit.world import launched

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListTraining:
    """Training of a cross-encoder on lists of positives and mined negatives.

    Args:
        epochs: passes over the examples, at most.
        steps: optimizer steps instead of epochs.
        batch_size: lists (queries) of a rank.
        negatives: of a list, at most; drawn anew each epoch when more were mined.
        max_positives: of a list, likewise.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW; not on biases and norms.
        warmup: share of the steps in which the rate rises to its peak.
        schedule: how the rate falls afterwards.
        clip_norm: gradients are scaled down to this norm; None leaves them.
        dropout: the model's own dropout. Off is faster.
        precision: of the model's computation; auto is bf16 where the hardware multiplies it.
        token_budget: padded tokens in a micro-batch; None is 1,024 on a CPU and 16,384 on a GPU.
        memory_gb: for graphs that are kept instead of computed twice; None is half of what is free. Never part of the
            result.
        validations_per_epoch: how often nDCG@10 of the reranked dev split is measured.
        patience: stop after this many measurements without a gain; None never stops.
        min_gain: of nDCG@10, that counts as one.
        checkpoint_every: steps after which is written where training stands; None writes at each validation.
        max_time: of the whole training, `"HH:MM:SS"` or minutes; then it ends as if it had been planned to.
        folds: cross-encoders trained besides, each without its share of the queries and of their documents, so that
            none teaches a query that it was trained on; None trains none.
        seed: of order, drawing, dropout and folds.
    """

    epochs: Annotated[int, Field(ge=1)] = 2
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 16
    negatives: Annotated[int, Field(ge=1)] = 8
    max_positives: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    schedule: Schedule = "linear"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    dropout: bool = False
    precision: Precision = "auto"
    token_budget: Annotated[int, Field(ge=1)] | None = None
    memory_gb: Annotated[float, Field(ge=0)] | None = None
    validations_per_epoch: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[int, Field(ge=1)] | None = 2
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    max_time: str | float | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_time is not None:
            seconds(self.max_time)  # refuses what is no time before anything is loaded

    def fit(
        self,
        ranker: CrossEncoder,
        loss: nn.Module,
        training_set: TrainingSet,
        validate: Callable[[CrossEncoder], Mapping[str, float]] | None,
        trainer: partial[pl.Trainer],
        folder: Path,
    ) -> Fit:
        """Train a cross-encoder in place and leave the best weights in it.

        Args:
            ranker: trained in place; has the best weights measured (without `validate`, the last) on return.
            loss: called on scores and labels of lists.
            training_set: what the miner made.
            validate: cross-encoder → metrics with `ndcg@10`.
            trainer: Lightning's Trainer, still to be given what this class owns.
            folder: keeps the best weights and where training stands; what an interrupted training left there is gone
                on with, to the same end.

        Raises:
            ConfigError: the loss is one of embeddings.
            UserError: no example has a negative, the loss became NaN, the best weights could not be read back, or the
                trainer's devices cannot train together.
            KeyboardInterrupt: Ctrl-C; the best weights so far are in `folder`.
        """
        if not getattr(loss, "on_lists", False):
            raise ConfigError(f"{type(loss).__name__} is a loss of embeddings; choose loss=listwise or loss=binary")
        layout = plan(trainer.keywords, launched())
        batch_size = self.batch_size * layout.size
        examples = Examples(training_set, self.max_positives)
        without = int((examples.negatives.lengths == 0).sum())
        if without == len(examples):
            raise UserError("no query has a negative, so no list has an order; choose a miner, such as miner=dense")
        if without:
            log.warning("%d of %d queries have no negative, and teach little or nothing", without, len(examples))
        per_epoch = len(Random(len(examples), batch_size))
        steps = self.steps or self.epochs * per_epoch
        collection = training_set.collection
        budget = self.token_budget or default_token_budget(ranker.device)
        module = Lists(
            ranker,
            loss,
            examples,
            ranker.tokenize(collection.query_texts()),
            ranker.tokenize(collection.document_texts()),
            Optimization(self.lr, self.weight_decay, self.warmup, self.schedule, self.clip_norm, steps),
            batch_size,
            self.negatives,
            Portions(budget, self.memory_gb, self.dropout, self.precision, self.seed),
        )
        log.info("training on %d lists: %d steps of up to %d", len(examples), steps, batch_size)
        plan_key = {"steps": steps, "batch_size": batch_size, "negatives": self.negatives, "seed": self.seed}
        limit = None if self.max_time is None else seconds(self.max_time)
        rhythm = (self.validations_per_epoch, self.patience, self.min_gain, self.checkpoint_every, limit)
        course = Course(steps, per_epoch, *rhythm)
        identity = digest({"examples": examples.digest, **plan_key})
        return fit_module(module, course, identity, validate, layout, trainer.keywords, folder)
