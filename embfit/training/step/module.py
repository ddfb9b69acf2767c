"""The Lightning module that takes optimizer steps: what training a bi-encoder and a cross-encoder have in common.

Design:
- a step is `optimize`: `BatchGradients` gives every weight its gradient, and `_move` moves the weights;
- the next batch is made while this one computes, and what a step measures is read when the next one has been queued:
  nothing here waits for the device (three things outside do: docs/performance.md). A step whose loss or gradient is not
  finite moves nothing, by the device's own word;
- what a process knows only when training begins (its ranks, who watches) comes in by `begin`, and where an interrupted
  training stood by `resume`. Nothing else is set from outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from embfit.device_transfer import to_device
from embfit.training.ranks.collectives import Command, Ranks
from embfit.training.step.gradients import BatchGradients, BatchLoss, ComputeSettings, Inputs, Trained
from embfit.training.step.loss_parts import LossPart
from embfit.training.step.metrics import StepMetrics, Watch, check
from embfit.training.step.optimization import Optimization, fused
from embfit.training.step.prefetch import Prefetch

if TYPE_CHECKING:
    from embfit.training.ranks.sharding import Shards


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
    """Trains an encoder on batches whose loss needs the encoder's outputs alone.

    Args:
        encoder: is trained in place.
        loss: a module whose parameters are trained as well.
        optimization: says how weights move.
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
        self._gradients = BatchGradients(encoder, loss, compute, Ranks())
        self._shards: Shards | None = None  # where ranks shard the encoder's weights
        self._metrics = StepMetrics()
        self._rate = 0.0  # at which the last step moved the weights
        self._broken = torch.zeros(())  # 1 from the first step on whose loss or gradient is not finite

    @abstractmethod
    def epoch_batches(self) -> Dataset[Any]:
        """Return the batches of the current epoch."""

    def prepare(self, batch: Any) -> Any:
        """Do for a batch all that needs no device; on a thread, while the step before computes."""
        return batch

    def resume(self, position: Position) -> None:
        """Go on from where an interrupted training stood; the weights are restored already."""
        self._start = position
        self.steps_taken, self.pairs_seen = position.steps, position.pairs

    def begin(self, ranks: Ranks, watchers: Sequence[Watch] = ()) -> None:
        """Make ready for the first step of this process.

        Args:
            ranks: the processes that train together.
            watchers: are called with what each step has measured.
        """
        self._watchers = watchers
        if ranks.sharded:
            from embfit.training.ranks.sharding import Shards  # takes a while to import

            self._shards = Shards(self.encoder, ranks, self.compute.precision)
            self.encoder = self._shards.encoder
        self._gradients = BatchGradients(self.encoder, self.loss, self.compute, ranks, self._start != Position())

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self._gradients.ranks

    def train_dataloader(self) -> Prefetch[Any]:
        """Return the batches of the current epoch; of the one that a run resumes in, those that are left."""
        batches = self.epoch_batches()
        last = len(batches)  # type: ignore[arg-type]  # ours have a length
        return Prefetch(lambda number: self.prepare(batches[number]), range(self.first_batch, last))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave batches where they are: row numbers are needed on the CPU, and masks move with the outputs."""
        return batch

    def configure_optimizers(self) -> tuple[list[AdamW], list[LambdaLR]]:
        """AdamW with warm-up and decay."""
        optimizer, schedule = self.optimization.optimizer(self.encoder, self.loss, self.device)
        return [optimizer], [schedule]

    def on_train_start(self) -> None:
        """Switch dropout: an encoder without it trains in evaluation mode, in every architecture."""
        self.encoder.train(self.compute.dropout)
        self._metrics.restart_clock()

    def optimize(self, inputs: Inputs, loss: Callable[[Tensor], Iterable[LossPart]]) -> Step:
        """Move the weights against the gradient of a batch's loss; arguments as `BatchGradients.compute`."""
        found = self._gradients.compute(inputs, loss, self.global_step)
        norm = self._move(found.loss)
        self.steps_taken += 1
        return Step(found, norm)

    def record(self, step: Step, pairs: int, measured: Mapping[str, Tensor | float]) -> None:
        """Have a step's numbers checked, watched and logged, now or when the device has them.

        Args:
            step: the newest step.
            pairs: how many (query, document) pairs it has learnt from.
            measured: further numbers by name, each a scalar.

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
        """Check, watch and log what steps have measured; with `to_the_last`, wait for the newest of them.

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
        """Look at what a step has measured, which is finite; a kind of training that has more to check overrides it."""

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Give the loggers what was measured after a step; on the first rank alone."""
        if self.ranks.leads:
            for logger in self.trainer.loggers:
                logger.log_metrics(dict(numbers), step)

    def on_train_end(self) -> None:
        """Report what the last step has measured, and give the first rank all weights of a sharded encoder."""
        self.flush()
        if self._shards is not None:
            self._shards.gather()
            self.release_shards()

    def release_shards(self) -> None:
        """Remove the shards, before Lightning moves the module to the CPU: it cannot move weights that are gathered.

        A pass that failed leaves weights gathered. The first rank has the full encoder then, and the others have none.
        """
        shards, self._shards = self._shards, None  # an exception may come after the end of training
        if shards is None:
            return
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()
        del self.encoder
        if shards.full is not None:
            self.encoder = shards.full

    @contextmanager
    def full_encoder(self, together: bool = False) -> Iterator[Trained]:
        """Give the first rank the encoder with all of its present weights, for this context.

        Args:
            together: whether all ranks enter the context; else the first enters alone, and the others wait in
                `Ranks.agree`.
        """
        if self._shards is None:
            yield self.encoder
            return
        if not together:
            self.ranks.send(Command.GATHER_WEIGHTS)
        with self._shards.gathered() as encoder:
            yield encoder

    def full_weights(self) -> dict[str, Tensor]:
        """Return by name the weights that training moves, on the first rank; the others wait in `Ranks.agree`."""
        encoder = self.encoder
        if self._shards is not None:
            self.ranks.send(Command.GATHER_WEIGHTS)
            self._shards.gather()
            encoder = self.encoder if self._shards.full is None else self._shards.full
        parts = {"encoder": trained_weights(encoder), "loss": trained_weights(self.loss)}
        return {f"{part}.{name}": weight for part, weights in parts.items() for name, weight in weights.items()}

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state on the first rank, for `restore_optimizer`; the others wait in `Ranks.agree`."""
        optimizer = self._adam()
        if self._shards is None:
            return optimizer.state_dict()
        self.ranks.send(Command.GATHER_STATE)
        return self._shards.gather_state(optimizer)

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """Give the optimizer a state that `optimizer_state` returned, with shards or without."""
        optimizer = self._adam()
        optimizer.load_state_dict(state if self._shards is None else self._shards.shard_state(state, optimizer))

    def gather(self, command: Command) -> None:
        """Take part in what the first rank gathers."""
        if self._shards is None:
            raise RuntimeError(f"{command.name} was sent to a rank that has all weights")
        if command is Command.GATHER_WEIGHTS:
            self._shards.gather()
        else:
            self._shards.gather_state(self._adam())

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Do something other than training in this context: every step so far is checked, and no step's time counts it.

        Raises:
            UserError: as `flush`.
        """
        self.flush()
        yield
        self._metrics.restart_clock()

    def to_device(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device, without waiting for what the device does."""
        return to_device(tensor, self.device)

    @property
    def first_batch(self) -> int:
        """Number, in the current epoch, of the first batch that this process has of it."""
        return self._start.batch if self.current_epoch == self._start.epoch else 0

    def _adam(self) -> AdamW:
        return cast(AdamW, self.trainer.optimizers[0])

    def _move(self, loss: Tensor) -> Tensor:
        """Move the weights along their gradients; returns the gradients' norm before clipping.

        From the first step on whose loss or gradient is not finite they stay where they are, without the host asking.
        """
        optimizer = cast(LightningOptimizer, self.optimizers())
        norm = self._gradients.clip(self.optimization.clip_norm or float("inf"))
        broken = (~(loss.isfinite() & norm.isfinite())).float()
        self._broken = torch.maximum(self._broken.to(broken.device), broken)
        if fused(self.device):
            optimizer.optimizer.found_inf = self._broken  # type: ignore[attr-defined]  # torch.amp's word to fused steps
            optimizer.step()
        elif not self._broken:
            optimizer.step()
        optimizer.zero_grad()
        schedule = cast(LambdaLR, self.lr_schedulers())
        self._rate = float(schedule.get_last_lr()[0])
        schedule.step()
        return norm


def training_module(module: pl.LightningModule) -> TrainingModule:
    """Return the module that a callback was given as what it is."""
    if not isinstance(module, TrainingModule):
        raise TypeError(f"expected TrainingModule, got {type(module).__name__}")
    return module


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return by name the weights that training moves; frozen ones are as they were loaded."""
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}
