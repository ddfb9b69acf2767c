"""Checkpoints: a run that was killed resumes from the last one and ends with the same weights.

Order, drawn positives and dropout are functions of (seed, epoch, step, micro-batch), so a checkpoint holds no state of
a random generator. It holds weights, optimizer, schedule, the position in the epoch, and the state of validation.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from embfit.atomic_files import replacing
from embfit.errors import UserError, first_line
from embfit.training.fit.curve import Curve
from embfit.training.fit.validation import Validation
from embfit.training.step.module import Position, TrainingModule, training_module

NAME = "step.pt"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rest of a training depends on.

    Args:
        plan: identifies examples, batches and length of the training.
        step: how many optimizer steps have been taken.
        epoch: the epoch of the next batch, from 0.
        batch: the number of the next batch in its epoch.
        weights: the trained weights of encoder and loss.
        optimizer: the optimizer's state.
        schedule: the schedule's state.
        pairs: how many (query, positive) pairs have been trained on.
        over: whether training has ended before its last step.
        seconds: how long training has taken so far, validation included.
        validation: the state of validation, None without one.
        curve: the curve's state.
    """

    plan: str
    step: int
    epoch: int
    batch: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    pairs: int
    over: bool
    seconds: float
    validation: dict[str, Any] | None
    curve: dict[str, Any]

    @property
    def position(self) -> Position:
        """The position in the training."""
        return Position(self.epoch, self.batch, self.step, self.pairs)


def read_checkpoint(folder: Path, plan: str) -> Checkpoint | None:
    """Return the checkpoint in a folder; None if there is none.

    Raises:
        UserError: it cannot be read, or is of another training.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
        said = first_line(error)
        raise UserError(f"{path}: cannot be read ({said}); remove it to train from the beginning") from error
    if found.plan != plan:
        raise UserError(
            f"{path} (step {found.step}) is of another training: other examples, another global batch or length.\n"
            "Continue with the same ones (training.batch_size times ranks is the global batch), or remove the file to "
            "train from the beginning."
        )
    return found


class Checkpoints(pl.Callback):
    """Writes a checkpoint at regular steps.

    Args:
        folder: holds the newest checkpoint.
        plan: identifies examples, batches and length of the training.
        steps: the steps after which to write if `every` is None.
        every: how many steps are between two checkpoints.
        validation: its state is part of the checkpoint; None without validation.
        curve: its state is part of the checkpoint, too.
        clock: returns the seconds of training so far.
    """

    def __init__(
        self,
        folder: Path,
        plan: str,
        steps: Collection[int],
        every: int | None,
        validation: Validation | None,
        curve: Curve,
        clock: Callable[[], float],
    ) -> None:
        self.path = folder / NAME
        self.plan = plan
        self.steps = steps
        self.every = every
        self.validation = validation
        self.curve = curve
        self.clock = clock

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write at the planned steps and at an early end, after validation."""
        step = trainer.global_step
        due = step in self.steps if self.every is None else step % self.every == 0
        if due or trainer.should_stop:
            self.write(trainer, training_module(pl_module), batch_idx)

    def write(self, trainer: pl.Trainer, module: TrainingModule, batch: int) -> None:
        """Write a checkpoint after a batch of the epoch."""
        module.flush()  # every step in the checkpoint has been checked
        last = trainer.is_last_batch
        checkpoint = Checkpoint(
            plan=self.plan,
            step=trainer.global_step,
            epoch=module.current_epoch + last,
            batch=0 if last else module.first_batch + batch + 1,
            weights=module.full.weights(),
            optimizer=module.full.optimizer(module.optimizer),
            schedule=trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            pairs=module.pairs_seen,
            over=trainer.should_stop,
            seconds=self.clock(),
            validation=None if self.validation is None else self.validation.state(),
            curve=self.curve.state(),
        )
        with replacing(self.path) as temporary:
            torch.save(vars(checkpoint), temporary)
        if self.validation is not None:
            self.validation.remove_other_weights()  # a checkpoint may name only weights that are there


class Continue(pl.Callback):
    """Restores the optimizer and the schedule of a new Trainer from a checkpoint.

    Args:
        start: the checkpoint; the module has its weights already.
    """

    def __init__(self, start: Checkpoint) -> None:
        self.start = start

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the states, now that the optimizer exists."""
        module = training_module(pl_module)
        module.full.restore_optimizer(module.optimizer, self.start.optimizer)
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.start.schedule)


def restore(module: TrainingModule, start: Checkpoint, validation: Validation | None, curve: Curve) -> None:
    """Restore a module's weights and position in its epoch, and the states of validation and curve."""
    module.load_state_dict(start.weights, strict=False)  # frozen weights are as they were loaded
    module.resume(start.position)
    if validation is not None and start.validation is not None:
        validation.restore(start.validation)
    curve.restore(start.curve)
