"""A batch's loss over some of its queries at a time: their scores of all documents are never in memory together."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from embfit.loss import Relations

PAIRS = 2**23  # of a query and a document in a block; of each a loss keeps 14 to 53 bytes (docs/training.md)


def row_blocks(queries: int, documents: int) -> list[slice]:
    """Cut queries into blocks of at most `PAIRS` pairs with the documents."""
    rows = max(1, PAIRS // max(documents, 1))
    return [slice(start, start + rows) for start in range(0, queries, rows)]


def loss_parts(loss: nn.Module, queries: Tensor, documents: Tensor, relations: Relations) -> Iterator[Tensor]:
    """Yield parts whose sum is the loss of a batch, each with a graph of its own.

    A loss whose `mass` is not None is a mean over queries, or over pairs of theirs, of that weight: that of all is the
    mean of its blocks' by their mass. Any other loss is one part.
    """
    blocks = row_blocks(len(queries), len(documents))
    mass = getattr(loss, "mass", None)
    if mass is None or len(blocks) == 1 or (whole := mass(relations)) is None:
        yield loss(queries, documents, relations)
        return
    for block in blocks:
        part = relations.of(block)
        share = mass(part) / whole.clamp(min=1e-9)
        yield loss(queries[block], documents, part) * share
