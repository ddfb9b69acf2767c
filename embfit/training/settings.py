"""The settings that all trainings share, and the run of a training by them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import Field

from embfit.errors import UserError
from embfit.model.precision import Precision, default_token_budget
from embfit.records import DevQuality, Seed, TrainingSet
from embfit.store import digest
from embfit.training.batches import ExampleArrays
from embfit.training.fit.plan import Fit, TrainingPlan, seconds
from embfit.training.step.gradients import ComputeSettings, Trained
from embfit.training.step.optimization import Optimization
from embfit.training.step.schedule import Schedule

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from embfit.training.step.module import TrainingModule

log = logging.getLogger(__name__)


class TrainingData(Protocol):
    """The training data of a module.

    Args:
        unit: the word for examples in messages.
    """

    unit: ClassVar[str]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    @property
    def identity(self) -> Mapping[str, object]:
        """Identifies everything that the batches depend on, except the seed."""


Data = TypeVar("Data", bound=TrainingData)


@dataclass(frozen=True)
class TrainingSettings:
    """How long a training runs, how large its batches are, and how fast it learns.

    Args:
        epochs: how many passes over the examples there are, at most.
        steps: how many optimizer steps there are, instead of epochs.
        batch_size: how many examples (queries) a rank has in a batch.
        max_positives: how many positives of one query an epoch has, drawn again each time.
        lr: the peak learning rate of AdamW.
        loss_lr: the peak rate of the loss's own weights, such as a temperature, whose logarithm changes by about
            this much in a step.
        weight_decay: AdamW's decay; biases, norms and the loss's own weights have none.
        warmup: the share of the steps in which the rate rises to its peak.
        schedule: how the rate falls afterwards.
        clip_norm: gradients are scaled down to this norm; None does not clip.
        dropout: whether the model's own dropout is on. Off is faster.
        precision: the number format in which the model computes; auto is bf16 where the hardware multiplies it.
        token_budget: how many padded tokens a micro-batch has; None is 1,024 on a CPU and 16,384 on a GPU. It changes
            the result's last digits, so it never depends on how much memory is free.
        memory_gb: gigabytes for graphs that are kept instead of computed twice; None is half of the free memory. It
            never changes the result.
        gradient_checkpointing: layers keep only their inputs and compute the rest again: a micro-batch's memory falls
            to about a layer's, for a third more computation. It is for models whose smallest micro-batch does not fit.
        validations_per_epoch: how often nDCG@10 on the dev split is measured.
        patience: training stops after this many measurements in a row that gain nothing beyond chance;
            None never stops.
        min_gain: the nDCG@10 that counts as a gain.
        checkpoint_every: how many steps pass between two checkpoints; None writes one at each validation,
            or where one would be without a dev split.
        max_time: how long the whole training may take, `"HH:MM:SS"` or minutes; then it ends as after its last step.
        seed: decides order, drawing and dropout.
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

    def fit_on(
        self,
        training_set: TrainingSet,
        encoder: Trained,
        data: Callable[[ExampleArrays, int], Data],
        module: Callable[[Data, Optimization, ComputeSettings], TrainingModule],
        validate: Callable[[Any], DevQuality] | None,
        trainer: partial[pl.Trainer],
        folder: Path,
    ) -> Fit:
        """Train an encoder in place and leave the kept weights in it.

        Args:
            training_set: what the miner made.
            encoder: is trained in place.
            data: makes what the module is trained on of examples and the batch size of all ranks.
            module: makes what trains the encoder.
            validate: returns an encoder's quality on the dev split.
            trainer: makes Lightning's Trainer from the arguments that training adds.
            folder: holds kept weights and checkpoints.

        Raises:
            UserError: as `fit_module`, or the trainer's devices cannot train together.
            KeyboardInterrupt: Ctrl-C; a checkpoint is in `folder`.
        """
        from embfit.run.devices import devices_of
        from embfit.training.fit.fit import fit_module  # Lightning takes seconds to import

        layout = devices_of(trainer.keywords)
        batch_size = self.batch_size * layout.size
        examples = ExampleArrays(training_set, self.max_positives)
        found = data(examples, batch_size)
        plan = self.plan(per_epoch=len(found))
        trained = module(found, self.optimization(plan.steps), self.compute_settings(encoder.device))
        log.info("training on %d %s: %d steps of up to %d", len(examples), found.unit, plan.steps, batch_size)
        identity = digest({**found.identity, "steps": plan.steps, "seed": self.seed})
        return fit_module(trained, plan, identity, validate, layout, trainer.keywords, folder)

    def plan(self, per_epoch: int) -> TrainingPlan:
        """Return when a training validates, writes checkpoints and ends, where an epoch has `per_epoch` steps."""
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
        """Return the optimizer's settings for a training of so many steps."""
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
