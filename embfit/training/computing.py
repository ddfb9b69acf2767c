"""How a backbone computes while it is trained: in the fastest ways there are, or in the least memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from embfit.model import CrossEncoder, Encoder
from embfit.training.attention import training_attention
from embfit.training.checkpointing import gradient_checkpointing
from embfit.training.lookup import direct_lookup


@contextmanager
def computing(encoder: Encoder | CrossEncoder, checkpointing: bool) -> Iterator[None]:
    """Have an encoder's backbone compute as training asks.

    Args:
        encoder: changed in this context.
        checkpointing: layers compute again in the backward pass what they did not keep.
    """
    backbone = encoder.backbone
    with ExitStack() as ways:
        ways.enter_context(training_attention(backbone, encoder.settings.attention, encoder.max_length))
        if not encoder.compiled:  # a compiled graph has its own way to add gradients up
            ways.enter_context(direct_lookup(backbone))
        if checkpointing:
            ways.enter_context(gradient_checkpointing(backbone))
        yield
