"""The in-batch-negative trainer: every query of a batch against every document of it, in micro-batches.

Design:
- a batch is a set of unique texts; they are sorted by length and cut into micro-batches under a fixed token budget, so
  results do not depend on how much memory is free;
- memory decides only how many micro-batches keep their graph (`gradient_cache`);
- the encoder computes in bf16 where the hardware does, everything after it in fp32; weights are fp32;
- random numbers are drawn per (seed, step, micro-batch), so a step that is computed again is the same step;
- several ranks share out the micro-batches of one plan, so that n ranks of batch B do what one does of n x B.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset

from embfit.errors import UserError
from embfit.model import Encoder
from embfit.model.precision import Precision, uses_bf16
from embfit.tokens import Tokens, concatenate, padding_share, plan_batches
from embfit.training.batches import Batch, EpochBatches, Examples
from embfit.training.gradient_cache import CachedEncoding
from embfit.training.memory import GIGABYTE, free_bytes, measure_graph
from embfit.training.ranks import Ranks
from embfit.training.remining import Remining
from embfit.training.schedule import Schedule, learning_rate_share

NO_DECAY = ("bias", "norm", "temperature")  # parameters that weight decay would only distort


@dataclass(frozen=True)
class Optimization:
    """How weights move. `Training` documents each value."""

    lr: float
    weight_decay: float
    warmup: float
    schedule: Schedule
    clip_norm: float | None
    steps: int


class InBatch(pl.LightningModule):
    """Trains an encoder on batches of unique rows.

    Args:
        encoder: trained in place.
        loss: called on embeddings, labels and masks.
        examples: the training set as arrays.
        query_tokens: of all the collection's queries.
        document_tokens: of all its documents.
        optimization: learning rate and the like.
        batch_size: examples in a batch, of all ranks together.
        token_budget: padded tokens in a micro-batch.
        memory_gb: for graphs that are kept; None is half of what is free when training starts.
        dropout: whether the encoder's dropout is on.
        precision: of the encoder's computation.
        seed: of order, drawing and dropout.
    """

    def __init__(
        self,
        encoder: Encoder,
        loss: nn.Module,
        examples: Examples,
        query_tokens: Tokens,
        document_tokens: Tokens,
        optimization: Optimization,
        batch_size: int,
        token_budget: int,
        memory_gb: float | None,
        dropout: bool,
        precision: Precision,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = encoder
        self.loss = loss
        self.examples = examples
        self.query_tokens = query_tokens
        self.document_tokens = document_tokens
        self.optimization = optimization
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.memory_gb = memory_gb
        self.dropout = dropout
        self.precision = precision
        self.seed = seed
        self.steps_taken = 0
        self.pairs_seen = 0
        self.start = (0, 0)  # epoch and batch that this process begins with
        self.remining: Remining | None = None
        self.ranks = Ranks()
        self.ranks_here = 1  # that share this machine's memory
        self._measured: tuple[float, float] | None = None  # bytes that a padded token keeps, bytes allowed
        self._reached: list[nn.Parameter] | None = None  # what ranks sum: no step reaches other weights than the first

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of the current epoch; of the one that a run goes on with, those that are left."""
        first = self.first_batch
        if self.remining is not None:
            mined = self.remining.examples(self.current_epoch, first == 0, self.encoder, self.ranks)
            self.examples = self.examples if mined is None else mined
        batches = EpochBatches(self.examples, self.batch_size, self.seed, self.current_epoch)
        if first == 0:
            return DataLoader(batches, batch_size=None)
        limit = self.trainer.limit_train_batches  # of a whole epoch, when it is a number of batches
        last = min(limit, len(batches)) if isinstance(limit, int) else len(batches)
        return DataLoader(Subset(batches, range(first, last)), batch_size=None)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leave batches where they are: row numbers are needed on the CPU, and masks move with the embeddings."""
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
        self.encoder.train(self.dropout)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Compute the loss of a batch and move the weights."""
        texts = concatenate([self.query_tokens.take(batch.queries), self.document_tokens.take(batch.documents)])
        micro_batches = plan_batches(texts.lengths, self.token_budget)
        mine = self.ranks.share(_areas(texts, micro_batches))  # numbers in the plan, which seed dropout on any rank
        own = [micro_batches[number] for number in mine]
        encoding = CachedEncoding[np.ndarray](
            lambda rows: self._encode(texts, rows), lambda row: self._seeded(mine[row])
        )
        outputs = encoding.forward(own, keep=self._kept(texts, own))

        vectors = torch.zeros(len(texts), self.encoder.width, device=self.device)  # [Q + D, H]
        order = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *own])).to(self.device)
        if own:  # a small batch leaves a rank without
            vectors[order] = torch.cat(outputs)
        self.ranks.sum(vectors)  # each text was encoded by one rank
        vectors.requires_grad_()
        queries, documents = vectors[: len(batch.queries)], vectors[len(batch.queries) :]
        positives, ignored = batch.positives.to(self.device), batch.ignored.to(self.device)
        teacher = () if batch.teacher is None else (batch.teacher.to(self.device),)
        with _random_state(
            self._seed(len(micro_batches)), torch.device("cpu")
        ):  # a loss may draw: on all ranks the same
            loss = self.loss(queries, documents, positives, ignored, batch.weights.to(self.device), *teacher)
        self._check(loss)
        self.manual_backward(loss)
        gradient = vectors.grad
        if gradient is None:
            raise RuntimeError(f"{type(self.loss).__name__} does not depend on the embeddings")
        encoding.backward(torch.split(gradient[order], [len(rows) for rows in own]))
        self._sum_gradients()

        norm = self._move()
        self.steps_taken += 1
        self.pairs_seen += batch.pairs
        if self.ranks.leads:
            self._log(batch, loss, norm, queries, documents, padding_share(texts.lengths, micro_batches))

    @property
    def first_batch(self) -> int:
        """Number, in the current epoch, of the first batch that this process has of it."""
        return self.start[1] if self.current_epoch == self.start[0] else 0

    def _encode(self, texts: Tokens, rows: np.ndarray) -> Tensor:
        ids, mask = texts.padded(rows, self.encoder.pad_id, self.encoder.pads_left)
        bf16 = uses_bf16(self.precision, self.device)
        vectors: Tensor = self.encoder(ids.to(self.device), mask.to(self.device), bf16)  # [n, H]
        return vectors

    def _seeded(self, micro_batch: int) -> AbstractContextManager[object]:
        if not self.dropout:
            return nullcontext()
        return _random_state(self._seed(micro_batch), self.device)

    def _seed(self, part: int) -> int:
        """Return a seed for a part of this step: a micro-batch, or after the last one the loss."""
        return int(np.random.SeedSequence([self.seed, self.global_step, part]).generate_state(1, np.uint64)[0])

    def _kept(self, texts: Tokens, micro_batches: list[np.ndarray]) -> int:
        """Return how many micro-batches can keep their graph within the memory allowed."""
        if not micro_batches:
            return 0
        areas = _areas(texts, micro_batches)
        if self._measured is None:  # once: the first micro-batch holds the longest texts
            with measure_graph(self.encoder) as size, self._seeded(0):
                self._encode(texts, micro_batches[0])
            allowed = self._free_bytes() / 2 if self.memory_gb is None else self.memory_gb * GIGABYTE
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

    @torch.no_grad()
    def _log(
        self, batch: Batch, loss: Tensor, norm: Tensor, queries: Tensor, documents: Tensor, padding: float
    ) -> None:
        positives, ignored = batch.positives.to(self.device), batch.ignored.to(self.device)
        scores = queries @ documents.T  # [Q, D]
        hardest = scores.masked_fill(positives | ignored, -2.0).amax(dim=1, keepdim=True)  # cosines are above -2
        right = (scores > hardest)[positives].float().mean()
        self.log_dict(
            {
                "train/loss": loss.detach(),
                "train/accuracy": right,  # share of positives that score above all their negatives
                "train/lr": cast(LambdaLR, self.lr_schedulers()).get_last_lr()[0],
                "train/gradient_norm": norm,
                "train/padding_share": padding,
                "train/ignored_share": ignored.float().mean(),
                "train/documents": float(len(documents)),
            }
        )
        temperature = getattr(self.loss, "temperature", None)  # not every loss has one
        if isinstance(temperature, Tensor):
            self.log("train/temperature", temperature)


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return by name the weights that training moves; frozen ones are as they were loaded."""
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}


def _areas(texts: Tokens, micro_batches: list[np.ndarray]) -> list[int]:
    """Return the padded tokens of each micro-batch."""
    return [len(rows) * int(texts.lengths[rows].max()) for rows in micro_batches]


@contextmanager
def _random_state(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed) if devices else torch.default_generator.manual_seed(seed)  # others are not forked
        yield
