"""The Lightning module that takes optimizer steps: what training a bi-encoder and a cross-encoder have in common.

Design:
- `optimize` takes a step: `BatchGradients` computes the gradients, and `_update` updates the weights;
- nothing here waits for the device. A thread prepares the next batch while this one computes. A step's measurements are
  read after the next step has been queued. The device itself skips the update where the loss or a gradient is not
  finite. (Three things outside this file do wait: docs/performance.md.)
- `begin` takes what a process knows only when training begins: its ranks and the callers that watch. `resume` takes the
  position of an interrupted training. Nothing else is set from outside;
- `full` gathers the weights where ranks shard them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from embfit.device_transfer import to_device
from embfit.training.ranks.collectives import Command, Ranks
from embfit.training.step.full_state import FullState
from embfit.training.step.gradients import BatchGradients, BatchLoss, ComputeSettings, Inputs, Trained
from embfit.training.step.loss_parts import LossPart
from embfit.training.step.metrics import StepMetrics, Watch, check
from embfit.training.step.optimization import Optimization, fused
from embfit.training.step.prefetch import Prefetch


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Args:
        epoch: the epoch of the next batch, from 0.
        batch: the number of the next batch in its epoch.
        steps: how many optimizer steps have been taken.
        pairs: how many (query, positive) pairs have been trained on.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Step:
    """What one step did.

    Args:
        batch: what its batch gave.
        norm: the norm of the gradients, before clipping.
    """

    batch: BatchLoss
    norm: Tensor


class TrainingModule(pl.LightningModule, ABC):
    """Trains an encoder by a loss of its outputs; a subclass supplies the batches and the loss.

    Args:
        encoder: is trained in place.
        loss: a module whose parameters are trained as well.
        optimization: says how weights are updated.
        compute: says how a step is computed.
    """

    def __init__(self, encoder: Trained, loss: nn.Module, optimization: Optimization, compute: ComputeSettings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = encoder
        self.loss = loss
        self.optimization = optimization
        self.compute = compute
        self.steps_taken = 0
        self.pairs_seen = 0
        self._start = Position()  # of this process
        self._watchers: Sequence[Watch] = ()
        self.full = FullState(encoder, loss, Ranks(), compute.precision)
        self._gradients = BatchGradients(encoder, loss, compute, Ranks())
        self._metrics = StepMetrics()
        self._rate = 0.0  # learning rate of the last step
        self._broken = torch.zeros(())  # 1 from the first step whose loss or gradient is not finite

    @abstractmethod
    def epoch_batches(self) -> Dataset[Any]:
        """Return the batches of the current epoch."""

    def prepare(self, batch: Any) -> Any:
        """Do the part of a step that needs no device, on a thread, while the step before it computes."""
        return batch

    def resume(self, position: Position) -> None:
        """Continue from the position of an interrupted training, whose weights have been restored."""
        self._start = position
        self.steps_taken, self.pairs_seen = position.steps, position.pairs

    def begin(self, ranks: Ranks, watchers: Sequence[Watch] = ()) -> None:
        """Prepare for the first step of this process.

        Args:
            ranks: the processes that train together.
            watchers: are called with what each step has measured.
        """
        self._watchers = watchers
        self.full = FullState(self.encoder, self.loss, ranks, self.compute.precision)
        self.encoder = self.full.trained
        self._gradients = BatchGradients(self.encoder, self.loss, self.compute, ranks, self._start != Position())

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self._gradients.ranks

    def train_dataloader(self) -> Prefetch[Any]:
        """Return the batches of the current epoch; after a resume, the remaining ones of the epoch it resumes in."""
        batches = self.epoch_batches()
        last = len(batches)  # type: ignore[arg-type]  # ours have a length
        return Prefetch(lambda number: self.prepare(batches[number]), range(self.first_batch, last))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Keep batches on the CPU, where row numbers are needed; masks are moved together with the outputs."""
        return batch

    def configure_optimizers(self) -> tuple[list[AdamW], list[LambdaLR]]:
        """AdamW with warm-up and decay."""
        optimizer, schedule = self.optimization.optimizer(self.encoder, self.loss, self.device)
        return [optimizer], [schedule]

    def on_train_start(self) -> None:
        """Switch dropout on or off; an encoder without dropout trains in evaluation mode."""
        self.encoder.train(self.compute.dropout)
        self._metrics.restart_clock()

    def optimize(self, inputs: Inputs, loss: Callable[[Tensor], Iterable[LossPart]]) -> Step:
        """Take one optimizer step; the arguments are those of `BatchGradients.compute`."""
        found = self._gradients.compute(inputs, loss, self.global_step)
        norm = self._update(found.loss)
        self.steps_taken += 1
        return Step(found, norm)

    def record(self, step: Step, pairs: int, measured: Mapping[str, Tensor | float]) -> None:
        """Queue a step's measurements; check, report and log those that the device has computed by now.

        Args:
            step: the newest step.
            pairs: how many (query, document) pairs it has trained on.
            measured: further measurements by name, each a scalar.

        Raises:
            UserError: a loss or a gradient is not finite; the weights are those of the step before.
        """
        self.pairs_seen += pairs
        every: dict[str, Tensor | float] = {
            "train/loss": step.batch.loss,
            "train/gradient_norm": step.norm,
            "train/lr": self._rate,
            "train/padding_share": step.batch.padding,
            "train/pairs": float(pairs),
        }
        self._metrics.put(self.steps_taken, {**every, **measured}, self.device)
        self.flush(to_the_last=False)

    def flush(self, to_the_last: bool = True) -> None:
        """Check, report and log the measurements of past steps; with `to_the_last`, wait for the newest step's.

        Raises:
            UserError: a loss or a gradient is not finite; the weights are those of the step before.
        """
        every = getattr(self.trainer, "log_every_n_steps", 1)  # Lightning does not type it; 0 is never
        for step, numbers in self._metrics.take(self.device, to_the_last):
            check(step, numbers)
            self.examine(step, numbers)
            for watch in self._watchers:
                watch(step, numbers)
            if every and step % every == 0:
                self.log_numbers(step, numbers)

    def examine(self, step: int, numbers: Mapping[str, float]) -> None:
        """Check a step's measurements, all of which are finite; a subclass that has more to check overrides this."""

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the measurements of a step, only on the first rank."""
        if self.ranks.leads:
            for logger in self.trainer.loggers:
                logger.log_metrics(dict(numbers), step)

    def on_train_end(self) -> None:
        """Report the last step's measurements, and gather a sharded encoder on the first rank."""
        self.flush()
        self.full.gather()
        self.release_shards()

    def release_shards(self) -> None:
        """Replace a sharded encoder by the full one, because Lightning cannot move gathered weights to the CPU.

        A pass that failed leaves its weights gathered. Only the first rank has an encoder afterwards.
        """
        if not self.full.sharded:  # or released already: an exception may follow the end of training
            return
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()
        del self.encoder
        encoder = self.full.release()
        if encoder is not None:
            self.encoder = encoder

    def take_part(self, command: Command) -> None:
        """Gather, on another rank than the first, what the first rank has commanded."""
        self.full.take_part(command, self.optimizer)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Enter a context for other work than training: all steps are checked first, and no step's time includes it.

        Raises:
            UserError: as `flush`.
        """
        self.flush()
        yield
        self._metrics.restart_clock()

    def to_device(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device, without waiting for the device."""
        return to_device(tensor, self.device)

    @property
    def first_batch(self) -> int:
        """Number of the first batch that this process trains on in the current epoch."""
        return self._start.batch if self.current_epoch == self._start.epoch else 0

    @property
    def optimizer(self) -> AdamW:
        """The optimizer, once training has begun."""
        return cast(AdamW, self.trainer.optimizers[0])

    def _update(self, loss: Tensor) -> Tensor:
        """Clip the gradients and update the weights; return the gradients' norm before clipping.

        From the first step whose loss or gradient is not finite, the weights stay as they are. On a GPU the device
        decides this, so the host need not wait.
        """
        optimizer = cast(LightningOptimizer, self.optimizers())
        norm = self._gradients.clip(self.optimization.clip_norm or float("inf"))
        broken = (~(loss.isfinite() & norm.isfinite())).float()
        self._broken = torch.maximum(self._broken.to(broken.device), broken)
        if fused(self.device):
            optimizer.optimizer.found_inf = self._broken  # type: ignore[attr-defined]  # skips the update, as torch.amp does
            optimizer.step()
        elif not self._broken:
            optimizer.step()
        optimizer.zero_grad()
        schedule = cast(LambdaLR, self.lr_schedulers())
        self._rate = float(schedule.get_last_lr()[0])
        schedule.step()
        return norm


def training_module(module: pl.LightningModule) -> TrainingModule:
    """Return a callback's module with its type."""
    if not isinstance(module, TrainingModule):
        raise TypeError(f"expected TrainingModule, got {type(module).__name__}")
    return module
