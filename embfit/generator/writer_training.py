"""Trains a causal language model to write queries from pairs of a document and its queries.

A document and all of its queries are one sequence: the document is read once, and a mask lets each query see the
document and itself alone, at the positions that it has in generation. The loss is that of the queries' tokens.
"""

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
from embfit.model.precision import autocast
from embfit.progress import progress

log = logging.getLogger(__name__)

DIVERGED = "the loss of the query writer became NaN; lower generator.lr={:g}"


@dataclass(frozen=True)
class WrittenPair:
    """A document with the queries that people have written about it.

    Args:
        prompt: the tokens of the prompt, with the document.
        queries: the tokens of each query, with the line break that ends it.
    """

    prompt: Sequence[int]
    queries: Sequence[Sequence[int]]


@dataclass(frozen=True)
class WriterSettings:
    """How a language model is trained.

    Args:
        epochs: passes over the pairs at most; the weights after the best of them are kept.
        batch_size: the number of queries of a step, about.
        lr: the peak learning rate.
        warmup: the share of the steps in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: the largest norm of a step's gradient.
        seed: orders the documents.
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
        The losses a token: before training, and after each epoch.

    Raises:
        UserError: the loss became NaN.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    device = trained[0].device
    batches = _batches(pairs, settings.batch_size, 0)
    steps = len(batches) * settings.epochs
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, _linear(steps, round(settings.warmup * steps)))

    def loss_of(part: Sequence[WrittenPair]) -> tuple[Tensor, int]:
        with autocast(device, bf16):
            return query_loss(model, part, device)

    def measure() -> float:
        model.eval()
        with torch.no_grad():
            found = [loss_of(part) for part in _batches(held_out, settings.batch_size, 0)]
        return sum(float(loss) * count for loss, count in found) / sum(count for _, count in found)

    def weights() -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}

    best = measure() if held_out else math.inf
    kept = weights() if held_out else {}
    facts: dict[str, Any] = {"held_out_loss": [round(best, 4)] if held_out else []}
    with progress("training the writer", steps, "steps") as advance:
        for epoch in range(settings.epochs):
            model.train()
            for part in _batches(pairs, settings.batch_size, settings.seed + epoch):
                loss, _ = loss_of(part)
                if not torch.isfinite(loss):
                    raise UserError(DIVERGED.format(settings.lr))
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(trained, settings.clip_norm)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
                advance()
            if held_out:
                found = measure()
                if not math.isfinite(found):
                    raise UserError(DIVERGED.format(settings.lr))
                facts["held_out_loss"].append(round(found, 4))
                log.info("epoch %d: loss %.4f a token of held-out queries", epoch + 1, found)
                if found >= best:  # a later epoch knows the pairs by heart
                    with torch.no_grad():
                        for name, weight in kept.items():
                            model.get_parameter(name).copy_(weight)
                    break
                best = found
                facts["kept_epoch"] = epoch + 1
                if epoch + 1 < settings.epochs:
                    kept = weights()
    if held_out and "kept_epoch" not in facts:
        log.warning(
            "training made held-out queries no more probable (loss %.3f a token before, %.3f after), so the model "
            "keeps the weights that it came with; lower generator.lr=%g",
            *(*facts["held_out_loss"][:2], settings.lr),
        )
    model.eval()
    return facts


def query_loss(model: Any, pairs: Sequence[WrittenPair], device: torch.device) -> tuple[Tensor, int]:
    """Return the mean loss of the queries' tokens, and their number.

    Args:
        model: the model.
        pairs: documents with their queries; a row of the batch each.
        device: where the model is.
    """
    rows = [_row(pair) for pair in pairs]
    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    places = torch.zeros(len(rows), width, dtype=torch.long)
    blocks = torch.full((len(rows), width), -1)
    for number, row in enumerate(rows):
        size = len(row.tokens)
        tokens[number, :size] = torch.tensor(row.tokens)
        places[number, :size] = torch.tensor(row.places)
        blocks[number, :size] = torch.tensor(row.blocks)
    order = torch.arange(width)
    same = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == 0)
    visible = same & (order[:, None] >= order) & (blocks >= 0)[:, None, :]
    visible |= torch.eye(width, dtype=torch.bool)  # padding sees itself, or its attention would be of nothing
    columns = sorted({source for row in rows for source in row.sources})  # a large vocabulary's scores of these alone
    place_of = {column: place for place, column in enumerate(columns)}
    logits = model(
        input_ids=tokens.to(device),
        attention_mask=_mask(model, visible, places, device),
        position_ids=places.to(device),
        use_cache=False,
        logits_to_keep=torch.tensor(columns, device=device),
    ).logits  # [B, columns, V]
    where = [(number, place_of[source]) for number, row in enumerate(rows) for source in row.sources]
    targets = torch.tensor([target for row in rows for target in row.targets], device=device)
    numbers, sources = torch.tensor(where, device=device).T
    loss = nn.functional.cross_entropy(logits[numbers, sources].float(), targets)
    return loss, len(targets)


@dataclass(frozen=True)
class _Row:
    """A document and its queries as one sequence.

    Args:
        tokens: all of them.
        places: their positions, which begin again behind the prompt for each query.
        blocks: 0 for the prompt, and the query's number from 1 on.
        sources: the columns from which the queries' tokens are predicted.
        targets: these tokens.
    """

    tokens: list[int]
    places: list[int]
    blocks: list[int]
    sources: list[int]
    targets: list[int]


def _row(pair: WrittenPair) -> _Row:
    length = len(pair.prompt)
    row = _Row(list(pair.prompt), list(range(length)), [0] * length, [], [])
    for number, query in enumerate(pair.queries, start=1):
        start = len(row.tokens)
        row.sources.extend([length - 1, *range(start, start + len(query) - 1)])
        row.targets.extend(query)
        row.tokens.extend(query)
        row.places.extend(range(length, length + len(query)))
        row.blocks.extend([number] * len(query))
    return row


def _mask(model: Any, visible: Tensor, places: Tensor, device: torch.device) -> Any:
    """Return what is added to attention scores ([B, 1, L, L]), by kind of layer where a model has two."""
    config = model.config.get_text_config()
    dtype = next(model.parameters()).dtype

    def additive(seen: Tensor) -> Tensor:
        return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None].to(device)

    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return additive(visible)
    near = places[:, :, None] - places[:, None, :] < config.sliding_window
    return {"full_attention": additive(visible), "sliding_attention": additive(visible & near)}


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
