"""Selects the trained weights of an encoder: all, those of its upper layers, or an adapter's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from embfit.errors import UserError
from embfit.model.encoder import Encoder
from embfit.model.layers import freeze, lowest
from embfit.model.lora import LoRA, attach, check_lora, has_adapter, merge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedParts:
    """The settings of which parts of an encoder are trained.

    Args:
        lora: the settings of an adapter that is trained instead of the weights.
        freeze_embeddings: whether to freeze the token embeddings.
        freeze_layers: how many layers, from the bottom, to freeze.
        compile: whether training runs through `torch.compile`.
        base: the name or folder by which a saved adapter finds the encoder's weights.
        revision: the base's branch, tag or commit on the Hub.
    """

    lora: LoRA
    freeze_embeddings: bool
    freeze_layers: int
    compile: bool
    base: str
    revision: str | None = None


def check_trainable(encoder: Encoder, parts: TrainedParts) -> None:
    """Raise the errors that `trainable` would raise, before any work is done.

    Raises:
        UserError: the encoder lacks the parts, or peft is not installed.
    """
    backbone, lora = encoder.backbone, parts.lora
    if encoder.graph is not None:
        raise UserError(
            f"{encoder.source} computes by {encoder.back_end}, which cannot be trained; set model.backend=torch"
        )
    lowest(backbone, parts.freeze_layers)
    if not has_adapter(backbone):
        check_lora(backbone, lora, parts.freeze_layers)
    elif lora.rank and not lora.merged:
        raise UserError(
            f"model.lora.merged=false: {parts.base} is an adapter itself, and a second one could not name its base; "
            "set model.lora.merged=true"
        )


@contextmanager
def trainable(encoder: Encoder, parts: TrainedParts) -> Iterator[None]:
    """Prepare an encoder for training; inside the context, only the trained weights require gradients.

    Afterwards the encoder is ready to be saved: merged with its adapter, or with the adapter beside its base.

    Args:
        encoder: the encoder, which is changed in place.
        parts: the parts to train.

    Raises:
        UserError: the encoder lacks the parts, or peft is not installed.
    """
    check_trainable(encoder, parts)
    backbone, lora = encoder.backbone, parts.lora
    if has_adapter(backbone):
        merge(backbone)
        backbone.requires_grad_(True)
    before = [weight for weight in encoder.parameters() if weight.requires_grad]
    try:
        freeze(backbone, parts.freeze_embeddings, parts.freeze_layers)
        if lora.rank:
            attach(backbone, lora, parts.freeze_layers, parts.base, parts.revision)
        encoder.settings = replace(encoder.settings, compile=parts.compile)
        _report(encoder)
        yield
    finally:
        encoder.settings = replace(encoder.settings, compile=False)
        for weight in before:
            weight.requires_grad_(True)
    if has_adapter(backbone) and lora.merged:
        merge(backbone)


def _report(encoder: Encoder) -> None:
    """Log how many of the weights are trained, if not all."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in encoder.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, moves in sizes if moves)
    if trained < total:
        log.info("training %.3g million of %.3g million weights", trained / 1e6, total / 1e6)
