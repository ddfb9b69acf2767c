"""What every training can be told, whatever it trains, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from embfit.errors import UserError
from embfit.model.precision import Precision, default_token_budget
from embfit.records import Seed
from embfit.training.fit.fit import TrainingPlan
from embfit.training.fit.time_limit import seconds
from embfit.training.step.micro_batches import ComputeSettings
from embfit.training.step.optimization import Optimization
from embfit.training.step.schedule import Schedule


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how large and how fast.

    Args:
        epochs: passes over the examples, at most.
        steps: optimizer steps instead of epochs.
        batch_size: examples (queries) of a rank.
        max_positives: of one query in an epoch, drawn anew each time.
        lr: peak learning rate of AdamW.
        loss_lr: that of what the loss itself learns, such as a temperature: of whose logarithm it is about the step.
        weight_decay: of AdamW; not on biases, norms and what the loss learns.
        warmup: share of the steps in which the rate rises to its peak.
        schedule: how the rate falls afterwards.
        clip_norm: gradients are scaled down to this norm; None leaves them.
        dropout: the model's own dropout. Off is faster.
        precision: of the model's computation; auto is bf16 where the hardware multiplies it.
        token_budget: padded tokens in a micro-batch; None is 1,024 on a CPU and 16,384 on a GPU. Part of the result's
            last digits, so it never follows from how much memory is free.
        memory_gb: for graphs that are kept instead of computed twice; None is half of what is free. Never part of the
            result.
        gradient_checkpointing: layers keep their inputs alone and compute the rest again: a micro-batch's memory falls
            to about a layer's, for a third more computation. For models whose smallest micro-batch does not fit.
        validations_per_epoch: how often nDCG@10 on the dev split is measured.
        patience: stop after this many measurements without a gain; None never stops.
        min_gain: of nDCG@10, that counts as one.
        checkpoint_every: steps after which is written where training stands; None writes at each validation, or where
            one would be.
        max_time: of the whole training, `"HH:MM:SS"` or minutes; then it ends as if it had been planned to.
        seed: of order, drawing and dropout.
    """

    epochs: Annotated[int, Field(ge=1)] = 3
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    max_positives: Annotated[int, Field(ge=1)] = 8
    lr: Annotated[float, Field(gt=0)] = 5e-5
    loss_lr: Annotated[float, Field(gt=0)] = 1e-2
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    schedule: Schedule = "linear"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    dropout: bool = False
    precision: Precision = "auto"
    token_budget: Annotated[int, Field(ge=1)] | None = None
    memory_gb: Annotated[float, Field(ge=0)] | None = None
    gradient_checkpointing: bool = False
    validations_per_epoch: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[int, Field(ge=1)] | None = 2
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    max_time: str | float | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        self._limit()  # refuses what is no time before anything is loaded

    def plan(self, per_epoch: int) -> TrainingPlan:
        """Return when what happens, an epoch having so many steps."""
        return TrainingPlan(
            self.steps or self.epochs * per_epoch,
            per_epoch,
            self.validations_per_epoch,
            self.patience,
            self.min_gain,
            self.checkpoint_every,
            self._limit(),
        )

    def optimization(self, steps: int) -> Optimization:
        """Return how weights move in a training of so many steps."""
        return Optimization(self.lr, self.loss_lr, self.weight_decay, self.warmup, self.schedule, self.clip_norm, steps)

    def compute_settings(self, device: torch.device) -> ComputeSettings:
        """Return how a step is computed on a device.

        Raises:
            UserError: the device cannot draw the same dropout again.
        """
        if device.type == "mps" and self.dropout and self.gradient_checkpointing:
            raise UserError(
                "training.gradient_checkpointing=true computes layers again, for which an Apple GPU draws another "
                "dropout; set training.dropout=false"
            )
        budget = self.token_budget or default_token_budget(device)
        return ComputeSettings(
            budget, self.memory_gb, self.dropout, self.precision, self.seed, self.gradient_checkpointing
        )

    def _limit(self) -> float | None:
        return None if self.max_time is None else seconds(self.max_time)
