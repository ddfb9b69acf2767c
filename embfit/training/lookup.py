"""Token embeddings whose gradient touches only the rows that were read.

PyTorch gives the gradient of a lookup as a table of the vocabulary's size, to be cleared and added for every
micro-batch: for a small model that is more memory traffic than all of its layers' weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel


@contextmanager
def direct_lookup(model: PreTrainedModel) -> Iterator[None]:
    """Have the gradient of a model's token embeddings added to them row by row, on a CPU.

    A GPU clears a table in no time, and adds rows in no fixed order.
    """
    table = model.get_input_embeddings()
    plain = (
        type(table) is nn.Embedding  # a subclass may do more than look up
        and table.weight.requires_grad
        and table.weight.device.type == "cpu"
        and table.max_norm is None
        and not table.scale_grad_by_freq
        and "forward" not in vars(table)
    )
    if not plain:
        yield
        return

    def look_up(ids: Tensor) -> Any:
        return _Lookup.apply(table.weight, ids, table.padding_idx)  # type: ignore[no-untyped-call]  # torch does not

    table.forward = look_up
    try:
        yield
    finally:
        del table.forward


class _Lookup(torch.autograd.Function):
    """`functional.embedding` that adds to the weight's gradient itself."""

    @staticmethod
    def forward(ctx: Any, weight: nn.Parameter, ids: Tensor, padding: int | None) -> Tensor:
        """Return the rows of the ids: [N, L] → [N, L, H]."""
        ctx.weight, ctx.padding = weight, padding
        ctx.save_for_backward(ids)
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        """Add the gradient ([N, L, H]) to the rows that were read, but for the padding's."""
        weight: nn.Parameter = ctx.weight
        rows, parts = ctx.saved_tensors[0].flatten(), gradient.flatten(0, -2)
        if ctx.padding is not None:
            real = rows != ctx.padding
            rows, parts = rows[real], parts[real]
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, rows, parts.to(weight.dtype))
        return None, None, None
