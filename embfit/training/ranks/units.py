"""The units of a sharded model, whose weights are gathered together, and the size of a rank's shard of a weight.

Each layer is a unit, the embeddings are one, and the rest of the backbone is the last. Training shards by these units,
and the estimate of its memory counts them. PyTorch's `fully_shard` divides the rows of each weight (its first
dimension): each rank holds equally many, rounded up, so the last ranks may hold fewer or none.
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

FSDP = "trainer.strategy=fsdp"
REMEDY = "set trainer.strategy=ddp"


@dataclass(frozen=True)
class Unit:
    """A module whose weights are gathered together.

    Args:
        module: has the weights; those of units within it do not belong to this unit.
        gathered_as: the number format in which they are gathered; None is their own.
    """

    module: nn.Module
    gathered_as: torch.dtype | None = None


def check_shardable(backbone: PreTrainedModel) -> None:
    """Refuse a model whose weights cannot be sharded.

    Experts that are one weight, as transformers writes them, get a gradient in each pass. Experts that are modules of
    their own get none in a pass that sends them no token, and ranks would sum the gradients of different weights.

    Raises:
        UserError: the model has no list of layers, uses a layer or a weight twice, has a weight that is a single
            number, or has experts that are modules of their own.
    """
    name = type(backbone).__name__
    _, layers = layer_stack(backbone, FSDP)
    if len(set(layers)) < len(layers):
        raise UserError(f"{FSDP} gathers each layer once, and {name} uses one layer several times; {REMEDY}")
    owners: dict[nn.Parameter, str] = {}
    for place, module in backbone.named_modules():
        if place.rpartition(".")[2] == "experts" and isinstance(module, nn.ModuleList | nn.ModuleDict):
            raise UserError(
                f"{FSDP} sums the gradients of the same weights on all ranks, and the texts of a rank reach only some "
                f"modules of {place} in {name}; {REMEDY}"
            )
        for own, weight in module.named_parameters(place, recurse=False):
            if weight in owners:
                raise UserError(f"{FSDP} would make two weights of {owners[weight]} and {own} in {name}; {REMEDY}")
            if not weight.ndim:
                raise UserError(f"{FSDP} shards the rows of each weight, and {own} in {name} is one number; {REMEDY}")
            owners[weight] = own


def units_of(backbone: PreTrainedModel, bf16: bool) -> list[Unit]:
    """Return the units of a backbone; a unit within another one comes before it.

    Args:
        backbone: the model.
        bf16: whether its layers are gathered in bf16. If they compute in bf16, ranks then send half as much, and
            autocast has nothing to cast.

    Raises:
        UserError: as `check_shardable`.
    """
    check_shardable(backbone)
    _, layers = layer_stack(backbone, FSDP)
    precision = torch.bfloat16 if bf16 else None
    return [*(Unit(layer, precision) for layer in layers), Unit(embeddings_of(backbone)), Unit(backbone)]


def weights_of(units: Iterable[Unit]) -> list[list[nn.Parameter]]:
    """Return the weights of each unit, without those of units within it; the order is that of `units_of`."""
    counted: set[nn.Parameter] = set()
    found = []
    for unit in units:
        found.append([weight for weight in unit.module.parameters() if weight not in counted])
        counted.update(found[-1])
    return found


def shard_size(shape: Sequence[int], ranks: int, rank: int = 0) -> int:
    """Return how many numbers of a weight a rank holds; the first rank holds the most.

    Args:
        shape: the weight's shape.
        ranks: the number of processes that shard the weight.
        rank: the number of the process, from 0.
    """
    most = -(-shape[0] // ranks)
    return min(most, max(0, shape[0] - rank * most)) * math.prod(shape[1:])
