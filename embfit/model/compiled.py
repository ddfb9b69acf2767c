"""The backbone's forward pass, plain or through `torch.compile`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from embfit.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def hidden_states(backbone: PreTrainedModel, ids: Tensor, mask: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Return the last hidden states, [N, L] → [N, L, H]."""
    hidden: Tensor = backbone(input_ids=ids, attention_mask=mask, **options).last_hidden_state
    return hidden


def compiled_hidden_states(backbone: PreTrainedModel, ids: Tensor, mask: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Compute `hidden_states`, compiled for any batch size and length; the first calls take minutes.

    Raises:
        UserError: PyTorch cannot compile this model, or cannot compile anything on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException  # PyTorch has no public name for it

    try:
        return _compiled()(backbone, ids, mask, options)
    except TorchDynamoException as error:
        raise UserError(
            f"model.compile=true: PyTorch cannot compile {type(backbone).__name__} here ({first_line(error)}); "
            "set model.compile=false"
        ) from error


def forget_compiled() -> None:
    """Clear compiled code: PyTorch compiles only for a few models in a process, and runs further ones uncompiled."""
    if _compiled.cache_info().currsize:
        _compiled.cache_clear()
        torch.compiler.reset()


@functools.cache
def _compiled() -> Callable[[PreTrainedModel, Tensor, Tensor, Mapping[str, Any]], Tensor]:
    # fallback_random: a pass that is computed again must draw the same numbers
    return torch.compile(hidden_states, dynamic=True, options={"fallback_random": True})
