"""Computes a batch's loss over blocks of queries, so that the scores of all queries are never in memory together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from embfit.loss import Relations
from embfit.vectors import Vectors

PAIRS = (
    2**23
)  # pairs of a query's vector and a document in a block; a loss keeps 14 to 53 bytes of each (docs/training.md)


@dataclass(frozen=True)
class LossPart:
    """The loss of a part of a batch.

    Args:
        loss: a scalar with its graph.
        correct: how many positives score above all their negatives, a scalar.
    """

    loss: Tensor
    correct: Tensor


@dataclass(frozen=True)
class BatchQueries(Vectors[Tensor]):
    """Queries that score the batch's documents once, for a loss, a loss inside it, and the accuracy.

    So callers must not change the scores in place.

    Args:
        documents: the documents of the batch; the scores of any others are computed at each call.
    """

    documents: Vectors[Tensor] = field(kw_only=True)

    @cached_property
    def _scores(self) -> Tensor:
        return super().scores(self.documents)  # [Q, D]

    def scores(self, documents: Vectors[Tensor]) -> Tensor:
        """Score every query against every document, as `Vectors.scores`."""
        return self._scores if documents is self.documents else super().scores(documents)


def row_blocks(queries: Vectors[Tensor], documents: Vectors[Tensor]) -> list[slice]:
    """Cut queries into blocks of at most `PAIRS` pairs of a query's vector and a document."""
    most = 1 if queries.single else int(queries.counts.max(initial=1))
    rows = max(1, PAIRS // max(most * len(documents), 1))
    return [slice(start, start + rows) for start in range(0, len(queries), rows)]


def loss_parts(
    loss: nn.Module, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations
) -> Iterator[LossPart]:
    """Yield parts whose sum is the loss of a batch, each with a graph of its own.

    A loss whose `mass` is not None is a weighted mean over queries or pairs, and `mass` is the sum of its weights. The
    batch's loss is then the mean of the blocks' losses, weighted by mass. Any other loss is one part.
    """
    blocks = row_blocks(queries, documents)
    mass = getattr(loss, "mass", None)
    if mass is None or len(blocks) == 1 or (whole := mass(relations)) is None:
        yield _part(loss, queries, documents, relations)
        return
    for block in blocks:
        some = relations.of(block)
        part = _part(loss, queries.part(block.start, block.stop), documents, some)
        share = mass(some) / whole.clamp(min=1e-9)
        yield LossPart(part.loss * share, part.correct)


def count_correct(scores: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return how many positives score above all negatives of their row (a scalar).

    Shapes:
        scores [R, C]; positives and negatives [R, C] bool.
    """
    hardest = scores.masked_fill(~negatives, float("-inf")).amax(dim=1, keepdim=True)  # [R, 1]
    return ((scores > hardest) & positives).sum()


def _part(loss: nn.Module, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations) -> LossPart:
    asking = BatchQueries(queries.rows, queries.starts, documents=documents)
    value: Tensor = loss(asking, documents, relations)
    with torch.no_grad():  # computed here if the loss has not computed them
        negatives = ~(relations.positives | relations.ignored)
        return LossPart(value, count_correct(asking.scores(documents), relations.positives, negatives))
