"""What is done to a backbone's layers: freezing the lowest ones, switching caches off, and setting their mode."""

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
    """Return the arguments that switch the key-value cache of a decoder off; none for a backbone that has no cache.

    Nothing is generated here, and a layer that is computed again in the backward pass would be in the cache twice.
    """
    return {"use_cache": False} if "use_cache" in inspect.signature(type(backbone).forward).parameters else {}


class ScoreLayer(nn.Linear):
    """Computes in fp32 under autocast too: in bf16 scores of 8 to 16 are 0.06 apart, and close documents tie."""

    def forward(self, features: Tensor) -> Tensor:
        """[..., H] of any precision → [..., labels] float32."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def score_in_fp32(backbone: PreTrainedModel) -> None:
    """Have a ranker's last layer, which gives the scores, compute in fp32 whatever the others do."""
    layers = [module for module in backbone.modules() if type(module) is nn.Linear]
    if layers and layers[-1].out_features == backbone.config.num_labels:
        layers[-1].__class__ = ScoreLayer  # in place: names, weights and what is saved stay the same


def freeze(backbone: PreTrainedModel, embeddings: bool, layers: int) -> None:
    """Take the lowest parts out of training. Nothing below the first weight that is trained costs a backward pass.

    Args:
        backbone: the model, which is changed in place.
        embeddings: whether to freeze the token embeddings, with positions and the norm that belongs to them.
        layers: how many layers, from the bottom, to freeze; any number freezes the embeddings too.

    Raises:
        UserError: there are not so many layers, with one left to train.
    """
    if embeddings or layers:
        embeddings_of(backbone).requires_grad_(False)
    for layer in lowest(backbone, layers):
        layer.requires_grad_(False)


def lowest(backbone: PreTrainedModel, layers: int) -> Sequence[nn.Module]:
    """Return that many layers from the bottom.

    Raises:
        UserError: there are not so many, with one left to train.
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
    """Return the name and the layers of the stack: the list that has as many modules as the model has layers.

    Args:
        backbone: the model that has the layers.
        setting: the setting that needs them, which the message names.

    Raises:
        UserError: there is none, as in a model whose layers share weights.
    """
    depth = getattr(backbone.config.get_text_config(), "num_hidden_layers", None)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise UserError(
        f"{type(backbone).__name__} has no list of {depth} layers to tell apart; for this model, remove {setting}"
    )


def embeddings_of(backbone: PreTrainedModel) -> nn.Module:
    """Return the module of the token embeddings, with positions and the norm that belongs to them."""
    found = getattr(backbone, "embeddings", None)  # BERT's relatives keep positions and a norm beside the tokens
    return found if isinstance(found, nn.Module) else backbone.get_input_embeddings()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while.

    A model that is in it already is left alone: a walk over all of its modules takes a millisecond, which is much of
    what a short query takes.
    """
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
