"""Gradient checkpointing: of each layer its input is kept, and the rest is computed again (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from embfit.model.layers import layer_stack


@contextmanager
def gradient_checkpointing(backbone: PreTrainedModel) -> Iterator[None]:
    """Have a backbone's layers compute again in the backward pass, with the random numbers of the first time.

    Not by transformers' own switch: that one works in training mode alone, where there is dropout.

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
