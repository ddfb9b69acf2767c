"""What trainers share: micro-batches under a token budget and a memory limit, and one optimizer step over all of them.

Design:
- inputs are sorted by length and cut into micro-batches under a fixed token budget, so results do not depend on how
  much memory is free;
- memory decides only how many micro-batches keep their graph (`gradient_cache`);
- the encoder computes in bf16 where the hardware does, everything after it in fp32; weights are fp32;
- random numbers are drawn per (seed, step, micro-batch), so a step that is computed again is the same step;
- several ranks share out the micro-batches of one plan, so that n ranks of batch B do what one does of n x B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Subset

from embfit.errors import UserError
from embfit.model import CrossEncoder, Encoder
from embfit.model.precision import Precision
from embfit.tokens import padding_share, plan_batches
from embfit.training.gradient_cache import CachedEncoding
from embfit.training.memory import GIGABYTE, free_bytes, measure_graph
from embfit.training.ranks import Ranks
from embfit.training.schedule import Schedule, learning_rate_share

NO_DECAY = ("bias", "norm", "temperature")  # parameters that weight decay would only distort

Trained: TypeAlias = Encoder | CrossEncoder
"""What can be trained in micro-batches."""


@dataclass(frozen=True)
class Optimization:
    """How weights move. `Training` documents each value."""

    lr: float
    weight_decay: float
    warmup: float
    schedule: Schedule
    clip_norm: float | None
    steps: int


@dataclass(frozen=True)
class Portions:
    """How a step is computed: nothing here but the seed is part of what it means.

    Args:
        token_budget: padded tokens in a micro-batch.
        memory_gb: for graphs that are kept; None is half of what is free when training starts.
        dropout: whether the encoder's dropout is on.
        precision: of the encoder's computation.
        seed: of order, drawing and dropout.
    """

    token_budget: int
    memory_gb: float | None
    dropout: bool
    precision: Precision
    seed: int


@dataclass(frozen=True)
class Step:
    """What one batch gave.

    Args:
        loss: a scalar.
        outputs: of the encoder, for all inputs ([N, ...]).
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
        portions: how a step is computed.
    """

    def __init__(self, encoder: Trained, loss: nn.Module, optimization: Optimization, portions: Portions) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = encoder
        self.loss = loss
        self.optimization = optimization
        self.portions = portions
        self.steps_taken = 0
        self.pairs_seen = 0
        self.start = (0, 0)  # epoch and batch that this process begins with
        self.ranks = Ranks()
        self.ranks_here = 1  # that share this machine's memory
        self._measured: tuple[float, float] | None = None  # bytes that a padded token keeps, bytes allowed
        self._reached: list[nn.Parameter] | None = None  # what ranks sum: no step reaches other weights than the first

    def epoch_batches(self) -> Dataset[Any]:
        """Return the batches of the current epoch."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the current epoch; of the one that a run goes on with, those that are left."""
        batches = self.epoch_batches()
        first = self.first_batch
        if first == 0:
            return DataLoader(batches, batch_size=None)
        limit = self.trainer.limit_train_batches  # of a whole epoch, when it is a number of batches
        count = len(batches)  # type: ignore[arg-type]  # ours have a length
        last = min(limit, count) if isinstance(limit, int) else count
        return DataLoader(Subset(batches, range(first, last)), batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave batches where they are: row numbers are needed on the CPU, and masks move with the outputs."""
        return batch

    def configure_optimizers(self) -> tuple[list[AdamW], list[LambdaLR]]:
        """AdamW with warm-up and decay; biases, norms and a learned temperature are not decayed."""
        plan = self.optimization
        trained = [(name, weight) for name, weight in self.named_parameters() if weight.requires_grad]
        groups = [
            {
                "params": [
                    weight for name, weight in trained if any(part in name.lower() for part in NO_DECAY) != decayed
                ],
                "weight_decay": plan.weight_decay if decayed else 0.0,
            }
            for decayed in (True, False)
        ]
        fused = self.device.type in ("cpu", "cuda")
        optimizer = AdamW([group for group in groups if group["params"]], lr=plan.lr, fused=fused)
        shares = LambdaLR(optimizer, lambda step: learning_rate_share(step, plan.steps, plan.warmup, plan.schedule))
        return [optimizer], [shares]

    def on_train_start(self) -> None:
        """Switch dropout: an encoder without it trains in evaluation mode, in every architecture."""
        self.encoder.train(self.portions.dropout)

    def descend(
        self,
        lengths: np.ndarray,
        encode: Callable[[np.ndarray], Tensor],
        shape: Sequence[int],
        loss: Callable[[Tensor], Tensor],
    ) -> Step:
        """Move the weights against the gradient of a batch's loss.

        Args:
            lengths: [N] tokens of each input.
            encode: numbers of n inputs → [n, ...] outputs.
            shape: of one output.
            loss: [N, ...] outputs → a scalar.
        """
        micro_batches = plan_batches(lengths, self.portions.token_budget)
        mine = self.ranks.share(_areas(lengths, micro_batches))  # numbers in the plan, which seed dropout on any rank
        own = [micro_batches[number] for number in mine]
        encoding = CachedEncoding[np.ndarray](encode, lambda row: self._seeded(mine[row]))
        found = encoding.forward(own, keep=self._kept(lengths, own, encode))

        outputs = torch.zeros(len(lengths), *shape, device=self.device)
        order = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *own])).to(self.device)
        if own:  # a small batch leaves a rank without
            outputs[order] = torch.cat(found)
        self.ranks.sum(outputs)  # each input was encoded by one rank
        outputs.requires_grad_()
        with _random_state(self._seed(len(micro_batches)), torch.device("cpu")):  # a loss may draw: all ranks the same
            value = loss(outputs)
        self._check(value)
        self.manual_backward(value)
        gradient = outputs.grad
        if gradient is None:
            raise RuntimeError(f"{type(self.loss).__name__} does not depend on the encoder's outputs")
        encoding.backward(torch.split(gradient[order], [len(rows) for rows in own]))
        self._sum_gradients()
        norm = self._move()
        self.steps_taken += 1
        return Step(value, outputs, norm, padding_share(lengths, micro_batches))

    @property
    def first_batch(self) -> int:
        """Number, in the current epoch, of the first batch that this process has of it."""
        return self.start[1] if self.current_epoch == self.start[0] else 0

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(cast(LambdaLR, self.lr_schedulers()).get_last_lr()[0])

    def _seeded(self, micro_batch: int) -> AbstractContextManager[object]:
        if not self.portions.dropout:
            return nullcontext()
        return _random_state(self._seed(micro_batch), self.device)

    def _seed(self, part: int) -> int:
        """Return a seed for a part of this step: a micro-batch, or after the last one the loss."""
        return int(np.random.SeedSequence([self.portions.seed, self.global_step, part]).generate_state(1, np.uint64)[0])

    def _kept(
        self, lengths: np.ndarray, micro_batches: list[np.ndarray], encode: Callable[[np.ndarray], Tensor]
    ) -> int:
        """Return how many micro-batches can keep their graph within the memory allowed."""
        if not micro_batches:
            return 0
        areas = _areas(lengths, micro_batches)
        if self._measured is None:  # once: the first micro-batch holds the longest inputs
            with measure_graph(self.encoder) as size, self._seeded(0):
                encode(micro_batches[0])
            gigabytes = self.portions.memory_gb
            allowed = self._free_bytes() / 2 if gigabytes is None else gigabytes * GIGABYTE
            self._measured = (size.bytes / areas[0], allowed)
        per_token, allowed = self._measured
        return int((np.cumsum(areas) * per_token <= allowed).sum())

    def _free_bytes(self) -> float:
        free = free_bytes(self.device)
        return free if self.device.type == "cuda" else free / self.ranks_here  # each rank has a GPU to itself

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

    def _move(self) -> Tensor:
        """Move the weights along their gradients; returns the gradients' norm before clipping."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        norm = nn.utils.clip_grad_norm_(self._trained(), self.optimization.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        cast(LambdaLR, self.lr_schedulers()).step()
        return norm

    def _check(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} in step {self.global_step + 1}; the weights are those of the step before.\n"
                "Lower training.lr or raise loss.temperature; training.precision=fp32 rules out rounding."
            )

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


@contextmanager
def _random_state(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed) if devices else torch.default_generator.manual_seed(seed)  # others are not forked
        yield
