"""The inner maximum of MaxSim, with a backward pass that keeps only the argmax.

A query vector's score of a document is the highest inner product with one of its vectors, so the gradient reaches only
that one: dS/dq = d_best and dS/dd_best = q. The forward pass keeps its index, 4 bytes for each query vector and
document. Automatic differentiation would keep a number for each pair of vectors and multiply all of them again. Both
passes work in blocks, so memory does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from embfit.device_transfer import to_device

LOWEST = float("-inf")  # the score of a document without any vector
BLOCK = {"cpu": 2**20, "cuda": 2**26}  # inner products in memory at once: as many as fit a CPU's caches, or fill a GPU
ROWS = 2048  # query vectors multiplied at once


def highest_products(queries: Tensor, documents: Tensor, starts: np.ndarray, block: int | None = None) -> Tensor:
    """Return each query vector's highest inner product with a vector of each document: [Vq, W], [Vd, W] → [Vq, D].

    Of equal products, the document's first vector counts. A document without vectors gets -inf and no gradient.

    Args:
        queries: [Vq, W].
        documents: [Vd, W] vectors of D documents, one after another.
        starts: [D + 1] int64, where each document's vectors begin.
        block: inner products in memory at once; None is `BLOCK` of the device. Results do not depend on it, except the
            last bit of a product.
    """
    most = block or BLOCK.get(queries.device.type, BLOCK["cpu"])
    best: Tensor = _HighestProducts.apply(queries, documents, starts, most)  # type: ignore[no-untyped-call]  # torch does not type it
    return best


class _HighestProducts(torch.autograd.Function):
    """Each query vector's highest product with a vector of each document."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, documents: Tensor, starts: np.ndarray, block: int) -> Tensor:
        """[Vq, W] and [Vd, W] → [Vq, D]."""
        shape = (len(queries), len(starts) - 1)
        best = queries.new_full(shape, LOWEST)
        places = torch.zeros(shape, dtype=torch.int32, device=queries.device)  # of the best vectors, in `documents`
        lengths = np.diff(starts)
        for some, columns in _padded_blocks(starts, lengths, max(1, block // max(1, min(len(queries), ROWS)))):
            texts = to_device(torch.from_numpy(some), queries.device)  # [d]
            index = to_device(torch.from_numpy(columns), queries.device)  # [d, longest]
            chosen = documents[index.flatten()]  # [d * longest, W]
            for start in range(0, len(queries), ROWS):
                rows = slice(start, start + ROWS)
                products = (queries[rows] @ chosen.T).view(-1, *index.shape)  # [q, d, longest]
                values, firsts = products.max(dim=2)  # [q, d]; of equal values the first
                best[rows, texts] = values
                places[rows, texts] = (index[:, 0] + firsts).int()
        ctx.save_for_backward(queries, documents, places)
        ctx.empty = np.flatnonzero(lengths == 0)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the weighted sums of the best document vectors, and of the query vectors that chose each of them."""
        queries, documents, places = ctx.saved_tensors
        if not len(documents) or not places.numel():
            return torch.zeros_like(queries), torch.zeros_like(documents), None, None
        if len(ctx.empty):
            gradient = gradient.index_fill(1, to_device(torch.from_numpy(ctx.empty), gradient.device), 0.0)
        of_queries = of_documents = None
        if ctx.needs_input_grad[0]:
            of_queries = functional.embedding_bag(
                places, documents, mode="sum", per_sample_weights=gradient.contiguous()
            )
        if ctx.needs_input_grad[1]:
            of_documents = _sums_by_place(queries, places, gradient, len(documents))
        return of_queries, of_documents, None, None


def _padded_blocks(starts: np.ndarray, lengths: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield documents of similar length, and the rows of their vectors as a table.

    Documents without vectors are left out. A shorter document's row is padded with its own first vector, which
    changes neither a maximum nor the first of equal products.

    Args:
        starts: [D + 1] where each document's vectors begin.
        lengths: [D] how many there are.
        most: the most entries of a table; a longer document has its own table.

    Yields:
        The numbers of d documents [d], and their rows [d, longest].
    """
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    stop = len(order)
    while stop:  # the longest first
        longest = int(lengths[order[stop - 1]])
        start = max(0, stop - max(1, most // longest))
        some = order[start:stop]
        within = np.arange(longest)
        yield some, starts[some][:, None] + np.where(within < lengths[some][:, None], within, 0)
        stop = start


def _sums_by_place(rows: Tensor, places: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return, for each place, the weighted sum of the rows that name it.

    Args:
        rows: [V, W] vectors.
        places: [V, D] int32, the D places that each row names, each below `count`.
        weights: [V, D] how much a row counts at each of its places.
        count: the number of places.

    Returns:
        [count, W] sums; 0 where no row names a place.
    """
    sorted_places, order = places.T.reshape(-1).sort(stable=True)  # sorted by document; they nearly are already
    offsets = torch.searchsorted(sorted_places, torch.arange(count, device=places.device, dtype=torch.int32))
    return functional.embedding_bag(
        order % len(rows),
        rows,
        offsets,
        mode="sum",
        per_sample_weights=weights.T.reshape(-1)[order],
    )
