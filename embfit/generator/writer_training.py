"""Trains a causal language model to write queries, from pairs of a document and its queries."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embfit.errors import UserError
from embfit.generator.writer_loss import WriterLoss, WrittenPair
from embfit.model.random_state import random_state
from embfit.progress import progress

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
) -> dict[str, Any]:
    """Train a model in place, and leave the weights in it that write the held-out queries best.

    Args:
        model: transformers' model, whose trained weights are in fp32.
        pairs: what it learns from.
        held_out: what decides which weights are kept; may be empty.
        settings: how it is trained.
        bf16: compute in bfloat16.

    Returns:
        `held_out_loss`, the losses a token before training and after each epoch, and `kept_epoch`, the epoch whose
        weights are kept, from 1; without it they are those that the model came with, or held-out pairs were not there.

    Raises:
        UserError: the loss is NaN, or became so.
    """
    loss = WriterLoss(model, bf16)
    with random_state(settings.seed, loss.device):
        facts = _train(model, pairs, held_out, settings, loss)
    if held_out and "kept_epoch" not in facts:
        log.warning(
            "training made held-out queries no more probable (loss %.3f a token before, %.3f after), so the model "
            "keeps the weights that it came with; lower generator.lr=%g",
            *(*facts["held_out_loss"][:2], settings.lr),
        )
    model.eval()
    return facts


def _train(
    model: Any,
    pairs: Sequence[WrittenPair],
    held_out: Sequence[WrittenPair],
    settings: WriterSettings,
    loss: WriterLoss,
) -> dict[str, Any]:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    epochs = [_batches(pairs, settings.batch_size, settings.seed + epoch) for epoch in range(settings.epochs)]
    steps = sum(map(len, epochs))  # orders differ in how many batches they make
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, _linear(steps, round(settings.warmup * steps)))
    best = _finite(loss.mean(held_out), UNTRAINED) if held_out else math.inf
    diverged = DIVERGED.format(settings.lr)
    kept = _trained_weights(model) if held_out else {}
    facts: dict[str, Any] = {"held_out_loss": [round(best, 4)] if held_out else []}
    with progress("training the writer", steps, "steps") as advance:
        for epoch, batches in enumerate(epochs, start=1):
            model.train()
            for batch in batches:
                _finite(loss.backward(batch), diverged)
                _finite(float(nn.utils.clip_grad_norm_(trained, settings.clip_norm)), diverged)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
                advance()
            if not held_out:
                continue
            found = _finite(loss.mean(held_out), diverged)
            facts["held_out_loss"].append(round(found, 4))
            log.info("epoch %d: loss %.4f a token of held-out queries", epoch, found)
            if found >= best:  # later epochs would overfit more
                with torch.no_grad():
                    for name, weight in kept.items():
                        model.get_parameter(name).copy_(weight)
                break
            best = found
            facts["kept_epoch"] = epoch
            if epoch < settings.epochs:
                kept = _trained_weights(model)
    return facts


def _finite(number: float, otherwise: str) -> float:
    """Return a loss or a gradient's norm; raise a `UserError` with a message if it is NaN or infinite."""
    if not math.isfinite(number):
        raise UserError(otherwise)
    return number


def _trained_weights(model: Any) -> dict[str, Tensor]:
    """Return a copy of the weights that are trained, by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


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
