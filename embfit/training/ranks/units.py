"""Which modules are gathered together where ranks share a model's weights out, and how much of a weight a rank holds.

A layer is a unit, the embeddings are one, and what is left of the backbone is the last. Training shards by these units,
and the estimate of its memory counts them. A rank holds rows of each weight (its first dimension), as PyTorch's
`fully_shard` divides them: as many on each rank, rounded up, so that the last ranks may have fewer or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from embfit.errors import UserError
from embfit.model.layers import embeddings_of, layer_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Unit:
    """Weights that are gathered together.

    Args:
        module: has the weights; those of units within it are not counted to it.
        gathered_as: the number format in which they are gathered; None is their own.
    """

    module: nn.Module
    gathered_as: torch.dtype | None = None


def units_of(backbone: PreTrainedModel, bf16: bool) -> list[Unit]:
    """Return the units of a backbone, those within another one before it.

    Args:
        backbone: the model.
        bf16: whether its layers are gathered in bf16, where they compute in it: ranks send half as much, and autocast
            has nothing to cast.

    Raises:
        UserError: the backbone has no list of layers, or a weight without rows.
    """
    _, layers = layer_stack(backbone, "trainer.strategy=fsdp")
    for name, weight in backbone.named_parameters():
        if not weight.ndim:
            raise UserError(
                f"trainer.strategy=fsdp shares out the rows of each weight, and {name} of {type(backbone).__name__} is "
                "a single number; set trainer.strategy=ddp"
            )
    precision = torch.bfloat16 if bf16 else None
    return [*(Unit(layer, precision) for layer in layers), Unit(embeddings_of(backbone)), Unit(backbone)]


def weights_of(units: Iterable[Unit]) -> list[list[nn.Parameter]]:
    """Return the weights of each unit, without those of the units before it."""
    counted: set[nn.Parameter] = set()
    found = []
    for unit in units:
        found.append([weight for weight in unit.module.parameters() if weight not in counted])
        counted.update(found[-1])
    return found


def shard_size(shape: Sequence[int], ranks: int, rank: int = 0) -> int:
    """Return how many numbers of a weight a rank holds; the first rank has the most, and every rank room for as many.

    Args:
        shape: the weight's.
        ranks: how many processes share the weight out.
        rank: which of them.
    """
    most = -(-shape[0] // ranks)
    return min(most, max(0, shape[0] - rank * most)) * math.prod(shape[1:])
