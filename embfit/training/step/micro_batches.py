"""What trainers share: micro-batches under a token budget and a memory limit, and one optimizer step over all of them.

Design:
- inputs are sorted by length and cut into micro-batches under a fixed token budget, so results do not depend on how
  much memory is free;
- memory decides only how many micro-batches keep their graph (`gradient_cache`);
- the encoder computes in bf16 where the hardware does, everything after it in fp32; weights are fp32;
- random numbers are drawn per (seed, step, micro-batch), so a step that is computed again is the same step;
- several ranks share out the micro-batches of one plan, so that n ranks of batch B do what one does of n x B;
- the next batch is made while this one computes, and what a step measures is read when the next one has been queued:
  nothing here waits for the device (three things outside do: docs/performance.md). A step whose loss or gradient is not
  finite moves nothing, by the device's own word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from embfit.model import CrossEncoder, Encoder
from embfit.model.precision import Precision
from embfit.tokens import padding_share, plan_batches
from embfit.training.ranks.collectives import Ranks
from embfit.training.step.backbone import training_backbone
from embfit.training.step.gradient_cache import CachedEncoding
from embfit.training.step.memory import GIGABYTE, GraphLimit, free_bytes, measure_graph
from embfit.training.step.metrics import StepMetrics, Watch, check
from embfit.training.step.optimization import Optimization, fused
from embfit.training.step.prefetch import Prefetch
from embfit.training.step.random_state import random_state

Trained: TypeAlias = Encoder | CrossEncoder
"""What can be trained in micro-batches."""


@dataclass(frozen=True)
class ComputeSettings:
    """How a step is computed. Dropout, precision and seed change what is learnt, the others its last digits at most.

    Args:
        token_budget: padded tokens in a micro-batch.
        memory_gb: for graphs that are kept; None is half of what is free when training starts. Changes no bit on a CPU.
        dropout: whether the encoder's dropout is on.
        precision: of the encoder's computation.
        seed: of order, drawing and dropout.
        gradient_checkpointing: layers keep their inputs alone, and compute the rest again.
    """

    token_budget: int
    memory_gb: float | None
    dropout: bool
    precision: Precision
    seed: int
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Step:
    """What one batch gave.

    Args:
        loss: a scalar, detached.
        outputs: of the encoder, for all inputs ([N, ...]), detached.
        norm: of the gradients, before clipping.
        padding: share of the area computed that was padding.
    """

    loss: Tensor
    outputs: Tensor
    norm: Tensor
    padding: float


class MicroBatched(pl.LightningModule):
    """Trains an encoder on batches whose loss needs the encoder's outputs alone.

    Args:
        encoder: trained in place.
        loss: a module, whose parameters are trained as well.
        optimization: learning rate and the like.
        compute: how a step is computed.
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
        self.start = (0, 0)  # epoch and batch that this process begins with
        self.ranks = Ranks()
        self.watchers: list[Watch] = []  # called with what each step has measured
        self.ranks_here = 1  # that share this machine's memory
        self._graphs: GraphLimit | None = None  # of what is free when training starts
        self.step_metrics = StepMetrics()
        self._rate = 0.0  # at which the last step moved the weights
        self._broken = torch.zeros(())  # 1 from the first step on whose loss or gradient is not finite
        self._reached: list[nn.Parameter] | None = None  # what ranks sum: no step reaches other weights than the first

    def epoch_batches(self) -> Dataset[Any]:
        """Return the batches of the current epoch."""
        raise NotImplementedError

    def prepare(self, batch: Any) -> Any:
        """Do for a batch all that needs no device; on a thread, while the step before computes."""
        return batch

    def train_dataloader(self) -> Prefetch[Any]:
        """Return the batches of the current epoch; of the one that a run goes on with, those that are left."""
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
        self.step_metrics.restart_clock()

    def optimize(
        self,
        lengths: np.ndarray,
        encode: Callable[[np.ndarray], Tensor],
        shape: Sequence[int],
        loss: Callable[[Tensor], Iterable[Tensor]],
    ) -> Step:
        """Move the weights against the gradient of a batch's loss.

        Args:
            lengths: [N] tokens of each input.
            encode: numbers of n inputs → [n, ...] outputs.
            shape: of one output.
            loss: [N, ...] outputs → scalars whose sum it is, of which each is done with before the next is asked for.
        """
        micro_batches = plan_batches(lengths, self.compute.token_budget)
        with training_backbone(self.encoder, self.compute.gradient_checkpointing):
            value, outputs = self._differentiate(lengths, micro_batches, encode, shape, loss)
        norm = self._move(value)
        self.steps_taken += 1
        return Step(value, outputs, norm, padding_share(lengths, micro_batches))

    def _differentiate(
        self,
        lengths: np.ndarray,
        micro_batches: list[np.ndarray],
        encode: Callable[[np.ndarray], Tensor],
        shape: Sequence[int],
        loss: Callable[[Tensor], Iterable[Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Give every weight its gradient of a batch's loss; returns the loss and all outputs, detached."""
        mine = self.ranks.share(_areas(lengths, micro_batches))  # numbers in the plan, which seed dropout on any rank
        own = [micro_batches[number] for number in mine]
        encoding = CachedEncoding[np.ndarray](encode, lambda row: self._seeded(mine[row]))
        found = encoding.forward(own, keep=self._kept(lengths, own, encode))

        outputs = torch.zeros(len(lengths), *shape, device=self.device)
        order = self.to_device(torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *own])))
        if own:  # a small batch leaves a rank without
            outputs[order] = torch.cat(found)
        self.ranks.sum(outputs)  # each input was encoded by one rank
        outputs.requires_grad_()
        with random_state(self._seed(len(micro_batches)), torch.device("cpu")):  # a loss may draw: all ranks the same
            value = torch.zeros((), device=self.device)
            for part in loss(outputs):
                self.manual_backward(part)
                value += part.detach()
        gradient = outputs.grad
        if gradient is None:
            raise RuntimeError(f"{type(self.loss).__name__} does not depend on the encoder's outputs")
        encoding.backward(torch.split(gradient[order], [len(rows) for rows in own]))
        self._sum_gradients()
        return value, outputs.detach()

    def record(self, step: Step, pairs: int, measured: Mapping[str, Tensor | float]) -> None:
        """Have a step's numbers checked, watched and logged, now or when the device has them.

        Args:
            step: the newest.
            pairs: (query, document) pairs that it has learnt from.
            measured: name → scalar, beside those that every step has.

        Raises:
            UserError: a loss or a gradient is not finite; the weights are those of the step before.
        """
        self.pairs_seen += pairs
        every: dict[str, Tensor | float] = {
            "train/loss": step.loss,
            "train/gradient_norm": step.norm,
            "train/lr": self._rate,
            "train/padding_share": step.padding,
            "train/pairs": float(pairs),
        }
        self.step_metrics.put(self.steps_taken, {**every, **measured}, self.device)
        self.flush(to_the_last=False)

    def flush(self, to_the_last: bool = True) -> None:
        """Check, watch and log what steps have measured; with `to_the_last`, wait for the newest of them.

        Raises:
            UserError: a loss or a gradient is not finite; the weights are those of the step before.
        """
        every = getattr(self.trainer, "log_every_n_steps", 1)  # Lightning does not type it; 0 is never
        for step, numbers in self.step_metrics.take(self.device, to_the_last):
            check(step, numbers)
            for watch in self.watchers:
                watch(step, numbers)
            if every and step % every == 0:
                self.log_numbers(step, numbers)

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Give the loggers what was measured after a step; on the first rank alone."""
        if self.ranks.leads:
            for logger in self.trainer.loggers:
                logger.log_metrics(dict(numbers), step)

    def on_train_end(self) -> None:
        """Tell what the last step has measured."""
        self.flush()

    def to_device(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device, without waiting for what the device does."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    @property
    def first_batch(self) -> int:
        """Number, in the current epoch, of the first batch that this process has of it."""
        return self.start[1] if self.current_epoch == self.start[0] else 0

    def _seeded(self, micro_batch: int) -> AbstractContextManager[object]:
        if not self.compute.dropout:
            return nullcontext()
        return random_state(self._seed(micro_batch), self.device)

    def _seed(self, part: int) -> int:
        """Return a seed for a part of this step: a micro-batch, or after the last one the loss."""
        return int(np.random.SeedSequence([self.compute.seed, self.global_step, part]).generate_state(1, np.uint64)[0])

    def _kept(
        self, lengths: np.ndarray, micro_batches: list[np.ndarray], encode: Callable[[np.ndarray], Tensor]
    ) -> int:
        """Return how many micro-batches can keep their graph within the memory allowed."""
        if not micro_batches:
            return 0

        def measure() -> int:
            with measure_graph(self.encoder) as size, self._seeded(0):
                encode(micro_batches[0])
            return size.bytes

        if self._graphs is None:
            gigabytes = self.compute.memory_gb
            self._graphs = GraphLimit(self._spare_bytes() / 2 if gigabytes is None else gigabytes * GIGABYTE)
        longest = int(lengths[micro_batches[0]].max())
        return self._graphs.kept(_areas(lengths, micro_batches), longest, measure)

    def _spare_bytes(self) -> float:
        """Return the memory that is free before the first step, less what gradients and moments will take of it."""
        free = free_bytes(self.device)
        own = free if self.device.type == "cuda" else free / self.ranks_here  # each rank has a GPU to itself
        copies = 3 if self.start == (0, 0) else 1  # a run that goes on has AdamW's two moments already
        return max(0.0, own - copies * sum(weight.nbytes for weight in self._trained()))

    def _sum_gradients(self) -> None:
        """Give all ranks the gradients of the whole batch."""
        if self.ranks.size == 1:
            return
        for weight in self.loss.parameters():  # every rank has computed the whole loss: this makes their mean
            if weight.grad is not None:
                weight.grad /= self.ranks.size
        if self._reached is None:
            self._reached = self.ranks.reached(self._trained())
        self.ranks.sum_gradients(self._reached)

    def _move(self, loss: Tensor) -> Tensor:
        """Move the weights along their gradients; returns the gradients' norm before clipping.

        From the first step on whose loss or gradient is not finite they stay where they are, without the host asking.
        """
        optimizer = cast(LightningOptimizer, self.optimizers())
        norm = nn.utils.clip_grad_norm_(self._trained(), self.optimization.clip_norm or float("inf"))
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

    def _trained(self) -> Iterator[nn.Parameter]:
        return (weight for weight in self.parameters() if weight.requires_grad)


def micro_batched(module: pl.LightningModule) -> MicroBatched:
    """Return the module that a callback was given as what it is."""
    if not isinstance(module, MicroBatched):
        raise TypeError(f"expected MicroBatched, got {type(module).__name__}")
    return module


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return by name the weights that training moves; frozen ones are as they were loaded."""
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}


def _areas(lengths: np.ndarray, micro_batches: list[np.ndarray]) -> list[int]:
    """Return the padded tokens of each micro-batch."""
    return [len(rows) * int(lengths[rows].max()) for rows in micro_batches]
