"""Trains a causal language model to write queries, from pairs of a document and its queries."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embfit.errors import UserError
from embfit.generator.writer_checkpoint import WriterCheckpoint, WriterCheckpoints
from embfit.generator.writer_loss import WriterLoss, WrittenPair
from embfit.graceful_stop import GracefulStop
from embfit.model.random_state import generator_states, random_state, restore_generators
from embfit.progress import Advance, progress
from embfit.store import digest

log = logging.getLogger(__name__)

UNTRAINED = "the query writer's loss is NaN or infinite before any training; set generator.precision=fp32"
DIVERGED = "the loss or the gradient of the query writer became NaN or infinite; lower generator.lr={:g}"


@dataclass(frozen=True)
class WriterSettings:
    """How a language model is trained.

    Args:
        epochs: passes over the pairs at most; the weights after the best of them are kept.
        batch_size: the number of queries of a step, about: a document's queries are in one step.
        lr: the peak learning rate.
        warmup: the share of the steps in which the rate rises.
        weight_decay: the weight decay of AdamW.
        clip_norm: the largest norm of a step's gradient.
        seed: orders the documents, and draws dropout.
    """

    epochs: int = 2
    batch_size: int = 16
    lr: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0


def train_writer(
    model: Any,
    pairs: Sequence[WrittenPair],
    held_out: Sequence[WrittenPair],
    settings: WriterSettings,
    bf16: bool,
    checkpoints: WriterCheckpoints | None = None,
) -> dict[str, Any]:
    """Train a model in place, and leave the weights in it that write the held-out queries best.

    Args:
        model: transformers' model, whose trained weights are in fp32.
        pairs: what it learns from.
        held_out: what decides which weights are kept; may be empty.
        settings: how it is trained.
        bf16: compute in bfloat16.
        checkpoints: keep the newest checkpoint; if there is one of the same training, training resumes from it and ends
            with the same weights. None writes none.

    Returns:
        `held_out_loss`, the losses a token before training and after each epoch, and `kept_epoch`, the epoch whose
        weights are kept, from 1; without it they are those that the model came with, or held-out pairs were not there.

    Raises:
        UserError: the loss is NaN, or became so.
        KeyboardInterrupt: Ctrl-C or SIGTERM; with `checkpoints`, after the current step and a checkpoint.
    """
    loss = WriterLoss(model, bf16)
    with random_state(settings.seed, loss.device):
        facts = _Training(model, pairs, held_out, settings, loss, checkpoints).run()
    if held_out and "kept_epoch" not in facts:
        log.warning(
            "training made held-out queries no more probable (loss %.3f a token before, %.3f after), so the model "
            "keeps the weights that it came with; lower generator.lr=%g",
            *(*facts["held_out_loss"][:2], settings.lr),
        )
    model.eval()
    return facts


class _Training:
    """One training: its state, and the remaining steps."""

    def __init__(
        self,
        model: Any,
        pairs: Sequence[WrittenPair],
        held_out: Sequence[WrittenPair],
        settings: WriterSettings,
        loss: WriterLoss,
        checkpoints: WriterCheckpoints | None,
    ) -> None:
        self.model, self.held_out, self.settings = model, held_out, settings
        self.loss, self.checkpoints = loss, checkpoints
        self.trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.plan = _plan(pairs, held_out, settings, self.trained)
        self.epochs = [_batches(pairs, settings.batch_size, settings.seed + epoch) for epoch in range(settings.epochs)]
        self.steps = sum(map(len, self.epochs))  # orders differ in how many batches they make
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        warmup = round(settings.warmup * self.steps)
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _linear(self.steps, warmup))
        self.step = self.epoch = self.batch = 0
        self.lowest = math.inf
        self.best = self._weights() if held_out else {}
        self.facts: dict[str, Any] = {"held_out_loss": []}
        self.stop = GracefulStop(
            "stopping after this step, when a checkpoint of the writer's training is written; interrupt again to stop "
            "at once"
        )

    def run(self) -> dict[str, Any]:
        """Take the remaining steps; return the facts for the report."""
        with self.stop.listening() if self.checkpoints else nullcontext():
            if not self._resume() and self.held_out:
                self.lowest = self._held_out_loss(UNTRAINED)
            with progress("training the writer", self.steps, "steps", None, self.step) as advance:
                while self.epoch < len(self.epochs):
                    self._take_steps(advance)
                    if self.held_out and not self._improved():  # later epochs would overfit more
                        break
                    self.epoch, self.batch = self.epoch + 1, 0
        if self.stop.asked:  # after the last check: a later process resumes from the last checkpoint
            raise KeyboardInterrupt
        return self.facts

    def _take_steps(self, advance: Advance) -> None:
        """Take the remaining steps of the epoch."""
        diverged = DIVERGED.format(self.settings.lr)
        self.model.train()
        for batch in self.epochs[self.epoch][self.batch :]:
            _finite(self.loss.backward(batch), diverged)
            norm = nn.utils.clip_grad_norm_(self.trained.values(), self.settings.clip_norm)
            _finite(float(norm), diverged)
            self.optimizer.step()
            self.rate.step()
            self.optimizer.zero_grad()
            self.step, self.batch = self.step + 1, self.batch + 1
            advance()
            if self.checkpoints and self.checkpoints.is_due:
                self._write()
            self._end_if_asked()

    def _improved(self) -> bool:
        """Measure the weights after an epoch; keep them if they are the best so far, else restore the best."""
        found = self._held_out_loss(DIVERGED.format(self.settings.lr))
        log.info("epoch %d: loss %.4f a token of held-out queries", self.epoch + 1, found)
        if found >= self.lowest:
            self._set_weights(self.best)
            return False
        self.lowest = found
        self.facts["kept_epoch"] = self.epoch + 1
        if self.epoch + 1 < len(self.epochs):
            self.best = self._weights()
        return True

    def _held_out_loss(self, otherwise: str) -> float:
        found = _finite(self.loss.mean(self.held_out, self._end_if_asked), otherwise)
        self.facts["held_out_loss"].append(round(found, 4))
        return found

    def _end_if_asked(self) -> None:
        """Write a checkpoint and end training if Ctrl-C or SIGTERM has arrived."""
        if self.stop.asked:
            if self.step:
                self._write()
            raise KeyboardInterrupt

    def _weights(self) -> dict[str, Tensor]:
        """Return a copy of the trained weights."""
        return {name: weight.detach().clone() for name, weight in self.trained.items()}

    @torch.no_grad()
    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            self.trained[name].copy_(weight)

    def _write(self) -> None:
        assert self.checkpoints is not None
        self.checkpoints.write(
            WriterCheckpoint(
                plan=self.plan,
                step=self.step,
                epoch=self.epoch,
                batch=self.batch,
                weights={name: weight.detach() for name, weight in self.trained.items()},
                best=self.best if "kept_epoch" in self.facts else None,
                optimizer=self.optimizer.state_dict(),
                schedule=self.rate.state_dict(),
                generators=generator_states(self.loss.device),
                lowest=self.lowest,
                facts=self.facts,
            )
        )

    def _resume(self) -> bool:
        """Restore the checkpoint of an earlier process; return whether there was one."""
        found = self.checkpoints.read(self.plan) if self.checkpoints else None
        if found is None:
            return False
        log.info("resuming the writer's training at step %d of %d", found.step, self.steps)
        self.step, self.epoch, self.batch = found.step, found.epoch, found.batch
        self._set_weights(found.weights)
        if found.best is not None:
            self.best = {name: weight.to(self.loss.device) for name, weight in found.best.items()}
        self.optimizer.load_state_dict(found.optimizer)
        self.rate.load_state_dict(found.schedule)
        self.lowest, self.facts = found.lowest, found.facts
        restore_generators(found.generators, self.loss.device)
        return True


def _finite(number: float, otherwise: str) -> float:
    """Return a loss or a gradient's norm; raise a `UserError` with a message if it is NaN or infinite."""
    if not math.isfinite(number):
        raise UserError(otherwise)
    return number


def _plan(
    pairs: Sequence[WrittenPair],
    held_out: Sequence[WrittenPair],
    settings: WriterSettings,
    trained: Mapping[str, Tensor],
) -> str:
    """Return a digest that identifies a training, so that no checkpoint of another one is used."""
    return digest(
        {
            "pairs": [[list(pair.prompt), *map(list, pair.queries)] for pair in pairs],
            "held_out": [[list(pair.prompt), *map(list, pair.queries)] for pair in held_out],
            "settings": asdict(settings),
            "weights": {name: list(weight.shape) for name, weight in trained.items()},
        }
    )


def _batches(pairs: Sequence[WrittenPair], size: int, seed: int) -> list[list[WrittenPair]]:
    """Cut documents into batches of about `size` queries, in an order drawn by the seed."""
    found: list[list[WrittenPair]] = []
    room = 0
    for place in np.random.default_rng(seed).permutation(len(pairs)).tolist():
        if room <= 0:
            found.append([])
            room = size
        found[-1].append(pairs[place])
        room -= len(pairs[place].queries)
    return found


def _linear(steps: int, warmup: int) -> Callable[[int], float]:
    """Return the rate of a step: it rises to 1, and falls to 0 at the end."""
    return lambda step: min((step + 1) / max(1, warmup), (steps - step) / max(1, steps - warmup), 1.0)
