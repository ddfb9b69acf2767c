"""Attention in the way that trains fastest, if the choice is left to embfit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from embfit.model.folder import Attention

PLAIN = 512  # tokens up to which a CPU trains faster with plain attention, whose memory is quadratic


@contextmanager
def training_attention(backbone: PreTrainedModel, asked: Attention, max_length: int) -> Iterator[None]:
    """Have a backbone attend by plain matrix products on a CPU, and elsewhere as it was loaded.

    The backward pass of the fused kernel is slower on a CPU (`scripts/benchmarks/portions.py`).

    Args:
        backbone: changed in this context.
        asked: anything but `auto` stays.
        max_length: of the texts, in tokens.
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
