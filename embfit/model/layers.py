"""Operations on a backbone's layers: freeze the lowest ones, switch caches off, set their mode."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from embfit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def without_cache(backbone: PreTrainedModel) -> dict[str, bool]:
    """Return the arguments that switch off the key-value cache of a decoder; none for other backbones.

    embfit generates no text here, and a layer that is computed again in the backward pass would be cached twice.
    """
    return {"use_cache": False} if "use_cache" in inspect.signature(type(backbone).forward).parameters else {}


class ScoreLayer(nn.Linear):
    """Computes in fp32 even under autocast: in bf16, scores of 8 to 16 differ in steps of 0.06, and documents tie."""

    def forward(self, features: Tensor) -> Tensor:
        """[..., H] of any precision → [..., labels] float32."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def score_in_fp32(backbone: PreTrainedModel) -> None:
    """Make a ranker's last layer, which gives the scores, compute in fp32."""
    layers = [module for module in backbone.modules() if type(module) is nn.Linear]
    if layers and layers[-1].out_features == backbone.config.num_labels:
        layers[-1].__class__ = ScoreLayer  # in place, so names, weights and saved files stay the same


def freeze(backbone: PreTrainedModel, embeddings: bool, layers: int) -> None:
    """Freeze the lowest parts. Layers below the first trained weight need no backward pass.

    Args:
        backbone: the model, which is changed in place.
        embeddings: whether to freeze the token embeddings, with positions and their norm.
        layers: how many layers, from the bottom, to freeze; any number freezes the embeddings too.

    Raises:
        UserError: there are too few layers, so that none is left to train.
    """
    if embeddings or layers:
        embeddings_of(backbone).requires_grad_(False)
    for layer in lowest(backbone, layers):
        layer.requires_grad_(False)


def lowest(backbone: PreTrainedModel, layers: int) -> Sequence[nn.Module]:
    """Return a number of layers from the bottom.

    Raises:
        UserError: there are too few layers, so that none is left to train.
    """
    if not layers:
        return ()
    _, stack = layer_stack(backbone)
    if layers >= len(stack):
        raise UserError(
            f"model.freeze_layers={layers} leaves none of the {len(stack)} layers to train; {len(stack) - 1} at most"
        )
    return list(stack)[:layers]


def layer_stack(backbone: PreTrainedModel, setting: str = "model.freeze_layers") -> tuple[str, nn.ModuleList]:
    """Return the name and the layers of the stack: the list with as many modules as the model has layers.

    Args:
        backbone: the model.
        setting: the setting that needs the layers, for the message.

    Raises:
        UserError: there is no such list, as in a model whose layers share weights.
    """
    depth = getattr(backbone.config.get_text_config(), "num_hidden_layers", None)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise UserError(
        f"{type(backbone).__name__} has no list of {depth} layers to tell apart; for this model, remove {setting}"
    )


def embeddings_of(backbone: PreTrainedModel) -> nn.Module:
    """Return the module of the token embeddings, with positions and their norm."""
    found = getattr(backbone, "embeddings", None)  # models like BERT keep positions and a norm in the same module
    return found if isinstance(found, nn.Module) else backbone.get_input_embeddings()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode in this context.

    A model in evaluation mode is not touched: visiting all of its modules takes a millisecond, a large part of the time
    of a short query.
    """
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
