"""How a backbone computes in training: `training_backbone` makes three changes and undoes them afterwards.

Each changes a transformers model only during a step, because encoding for storage computes without it:

- `training_attention`: plain attention on a CPU, whose backward pass is faster than the fused kernel's;
- `direct_lookup`: on a CPU the gradient of token embeddings is added row by row. PyTorch makes one as
  large as the whole table for every micro-batch, most of it zeros;
- `gradient_checkpointing`: layers keep only their inputs. The switch of transformers works in training mode only.

Checked with transformers 5.0 to 5.23 and PyTorch 2.6 to 2.13. The last two set `forward` on an instance, which shadows
the class's method: what PyTorch calls is changed, and the module's type, weights and hooks are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from embfit.model import CrossEncoder, Encoder
from embfit.model.layers import layer_stack
from embfit.model.settings import Attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN = 512  # tokens up to which a CPU trains faster with plain attention, whose memory is quadratic


@contextmanager
def training_backbone(encoder: Encoder | CrossEncoder, checkpointing: bool) -> Iterator[None]:
    """Let an encoder's backbone compute as training needs, inside this context.

    Args:
        encoder: has its backbone changed in this context.
        checkpointing: whether layers keep only their inputs and compute the rest again in the backward pass.
    """
    backbone = encoder.backbone
    with ExitStack() as changes:
        changes.enter_context(training_attention(backbone, encoder.settings.attention, encoder.max_length))
        if not encoder.compiled:  # a compiled graph sums gradients by itself
            changes.enter_context(direct_lookup(backbone))
        if checkpointing:
            changes.enter_context(gradient_checkpointing(backbone))
        yield


@contextmanager
def training_attention(backbone: PreTrainedModel, asked: Attention, max_length: int) -> Iterator[None]:
    """Let a backbone use plain attention on a CPU; on other devices it uses what it was loaded with.

    The backward pass of the fused kernel is slower on a CPU (`scripts/benchmarks/token_budget.py`).

    Args:
        backbone: is changed in this context.
        asked: the configured attention; anything but `auto` stays.
        max_length: how many tokens a text has, at most.
    """
    if asked != "auto" or backbone.device.type != "cpu" or max_length > PLAIN:
        yield
        return
    loaded = backbone.config._attn_implementation
    backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(loaded)


@contextmanager
def direct_lookup(model: PreTrainedModel) -> Iterator[None]:
    """Add the gradient of a model's token embeddings row by row, on a CPU.

    A GPU clears a table quickly, and its order of addition is not fixed.
    """
    table = model.get_input_embeddings()
    plain = (
        type(table) is nn.Embedding  # a subclass may compute something else
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
    """`functional.embedding` whose backward pass adds to the weight's gradient directly."""

    @staticmethod
    def forward(ctx: Any, weight: nn.Parameter, ids: Tensor, padding: int | None) -> Tensor:
        """Return the rows of the ids: [N, L] → [N, L, H]."""
        ctx.weight, ctx.padding = weight, padding
        ctx.save_for_backward(ids)
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        """Add the gradient ([N, L, H]) to the rows that were read, except the padding row."""
        weight: nn.Parameter = ctx.weight
        rows, parts = ctx.saved_tensors[0].flatten(), gradient.flatten(0, -2)
        if ctx.padding is not None:
            real = rows != ctx.padding
            rows, parts = rows[real], parts[real]
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, rows, parts.to(weight.dtype))
        return None, None, None


@contextmanager
def gradient_checkpointing(backbone: PreTrainedModel) -> Iterator[None]:
    """Let a backbone's layers compute again in the backward pass, with the same random numbers.

    transformers' own switch works only in training mode, and an encoder without dropout trains in evaluation mode.

    Raises:
        UserError: the backbone has no list of layers.
    """
    _, layers = layer_stack(backbone, "training.gradient_checkpointing")
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
