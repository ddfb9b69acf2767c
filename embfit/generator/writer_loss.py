"""The loss of queries that people have written about documents, under a causal language model.

A document and all of its queries are one sequence. The model reads the document once, and a mask lets each query see
only the document and itself, at the positions that it has in generation. Only the queries' tokens count, so the model's
head scores only the positions that predict them. With a large vocabulary, the scores of all positions would take more
memory than the rest of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embfit.model.precision import autocast, default_token_budget
from embfit.tokens import plan_batches


@dataclass(frozen=True)
class WrittenPair:
    """A document with the queries that people have written about it.

    Args:
        prompt: the tokens of the prompt, with the document.
        queries: the tokens of each query, with the line break that ends it.
    """

    prompt: Sequence[int]
    queries: Sequence[Sequence[int]]

    @property
    def predicted(self) -> int:
        """The number of tokens in the loss: those of the queries."""
        return sum(map(len, self.queries))

    @property
    def length(self) -> int:
        """The number of tokens of the whole sequence."""
        return len(self.prompt) + self.predicted


class WriterLoss:
    """The loss of queries under a model, computed in micro-batches of similar lengths under a token budget.

    So memory holds the activations of only one micro-batch, and little computation is spent on padding.

    Args:
        model: transformers' causal language model.
        bf16: compute in bfloat16.
        token_budget: the number of padded tokens of a micro-batch; None chooses one for the model's device.
    """

    def __init__(self, model: Any, bf16: bool, token_budget: int | None = None) -> None:
        self.model, self.bf16 = model, bf16
        self.device: torch.device = next(model.parameters()).device
        self.token_budget = token_budget or default_token_budget(self.device)

    def backward(self, pairs: Sequence[WrittenPair]) -> float:
        """Add the gradient of the mean loss per token to the weights' gradients; return that loss."""
        tokens = sum(pair.predicted for pair in pairs)
        total = torch.zeros((), device=self.device)
        for part in self._micro_batches(pairs):
            loss = self._of(part)
            torch.autograd.backward(loss / tokens)
            total += loss.detach()
        return float(total) / tokens

    @torch.no_grad()
    def mean(self, pairs: Sequence[WrittenPair], between: Callable[[], None] | None = None) -> float:
        """Return the mean loss per token, and leave the model in evaluation mode.

        Args:
            pairs: documents with their queries.
            between: called after each micro-batch; it may raise to stop.
        """
        self.model.eval()
        total = 0.0
        for part in self._micro_batches(pairs):
            total += float(self._of(part))
            if between is not None:
                between()
        return total / sum(pair.predicted for pair in pairs)

    def _micro_batches(self, pairs: Sequence[WrittenPair]) -> Iterator[list[WrittenPair]]:
        lengths = np.array([pair.length for pair in pairs])
        for rows in plan_batches(lengths, self.token_budget):
            yield [pairs[row] for row in rows.tolist()]

    def _of(self, pairs: Sequence[WrittenPair]) -> Tensor:
        with autocast(self.device, self.bf16):
            return query_loss(self.model, pairs, self.device)


def query_loss(model: Any, pairs: Sequence[WrittenPair], device: torch.device) -> Tensor:
    """Return the summed cross-entropy of the queries' tokens (a scalar, in fp32).

    Args:
        model: transformers' causal language model.
        pairs: documents with their queries; each is a row of the batch.
        device: where the model is.
    """
    rows = [_row(pair) for pair in pairs]
    width = max(pair.length for pair in pairs)
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
    visible = same & (order[:, None] >= order) & (blocks >= 0)[:, None, :]  # [B, L, L]
    visible |= torch.eye(width, dtype=torch.bool)  # padding sees itself, or its attention would be of nothing
    numbers = [number for number, row in enumerate(rows) for _ in row.sources]
    columns = [column for row in rows for column in row.sources]
    with _scored_positions(model, torch.tensor([numbers, columns], device=device)):
        [logits] = model(
            input_ids=tokens.to(device),
            attention_mask=_mask(model, visible, places, device),
            position_ids=places.to(device),
            use_cache=False,
        ).logits  # [1, N, V]
    targets = torch.tensor([target for row in rows for target in row.targets], device=device)
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


@contextmanager
def _scored_positions(model: Any, positions: Tensor) -> Iterator[None]:
    """Make a model's head read only the hidden states at some positions, so that its logits are [1, N, V].

    A hook before the head works for every architecture, and leaves later changes to the logits as they are (Gemma's
    soft cap, Granite's scale). Before transformers 5.23 or so, `logits_to_keep` takes no positions that differ by row.

    Args:
        model: transformers' causal language model.
        positions: [2, N] int64, row and column of each.
    """

    def gather(_: nn.Module, read: tuple[Tensor, ...]) -> Tensor:
        hidden = read[0]  # [B, L, H]
        return hidden[positions[0], positions[1]][None]  # [1, N, H]

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()


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
