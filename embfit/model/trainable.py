"""What of an encoder training moves: everything, its upper layers, or an adapter."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub.constants import HF_HUB_CACHE

from embfit.errors import UserError
from embfit.model.encoder import Encoder
from embfit.model.layers import freeze, lowest
from embfit.model.lora import attach, check_lora, has_adapter, merge

if TYPE_CHECKING:
    from embfit.model.pretrained import Pretrained

log = logging.getLogger(__name__)


def check_trainable(encoder: Encoder, model: Pretrained) -> None:
    """Refuse what `trainable` would, before there is any work.

    Raises:
        UserError: the encoder has no such parts, or peft is not installed.
    """
    backbone, lora = encoder.backbone, model.lora
    lowest(backbone, model.freeze_layers)
    if not has_adapter(backbone):
        check_lora(backbone, lora, model.freeze_layers)
    elif lora.rank and not lora.merged:
        raise UserError(
            f"model.lora.merged=false: {model.path} is an adapter itself, and a second one could not name its base; "
            "set model.lora.merged=true"
        )


@contextmanager
def trainable(encoder: Encoder, model: Pretrained) -> Iterator[None]:
    """Make an encoder what the configuration has trained; inside, `requires_grad` says which weights those are.

    Afterwards the encoder is what will be saved: merged with its adapter, or with the adapter beside its base.

    Args:
        encoder: changed in place.
        model: how it was loaded, and what of it is trained.

    Raises:
        UserError: the encoder has no such parts, or peft is not installed.
    """
    check_trainable(encoder, model)
    backbone, lora = encoder.backbone, model.lora
    if has_adapter(backbone):
        merge(backbone)
        backbone.requires_grad_(True)
    before = [weight for weight in encoder.parameters() if weight.requires_grad]
    try:
        freeze(backbone, model.freeze_embeddings, model.freeze_layers)
        if lora.rank:
            attach(backbone, lora, model.freeze_layers, *_base(encoder, model))
        encoder.settings = replace(encoder.settings, compile=model.compile)
        _tell(encoder)
        yield
    finally:
        encoder.settings = replace(encoder.settings, compile=False)
        for weight in before:
            weight.requires_grad_(True)
    if has_adapter(backbone) and lora.merged:
        merge(backbone)


def _tell(encoder: Encoder) -> None:
    """Say how many of the weights are trained, where it is not all of them."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in encoder.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, moves in sizes if moves)
    if trained < total:
        log.info("training %.3g million of %.3g million weights", trained / 1e6, total / 1e6)


def _base(encoder: Encoder, model: Pretrained) -> tuple[str, str | None]:
    """Return how a saved adapter finds its base: by name and revision on the Hub, or by folder."""
    folder = Path(encoder.source).absolute()
    if folder.is_relative_to(Path(HF_HUB_CACHE).absolute()):
        return str(model.path), model.revision
    return str(folder), None
