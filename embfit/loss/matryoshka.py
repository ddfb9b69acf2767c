"""Matryoshka representation learning: the same loss on nested prefixes of the embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from embfit.loss.relations import Relations
from embfit.vectors import Vectors

NESTED = (64, 128, 256, 512, 768)
NESTED_OF_TOKENS = (32, 64, 96, 128)  # of one vector a token, which is shorter


def nested_dims(width: int, single: bool = True) -> tuple[int, ...]:
    """Return the prefix lengths that are trained by default, ascending; arguments as `Matryoshka.dims_of`."""
    return (*(dim for dim in (NESTED if single else NESTED_OF_TOKENS) if dim < width), width)


class Matryoshka(nn.Module):
    """The mean of a loss over the first 64, 128, … dimensions of one embedding (Kusupati et al. 2022, eq. 1).

    Prefixes are renormalised and given to the loss; the encoder runs once. Prefixes of a trained model can then be
    served alone, at a fraction of the memory.

    Args:
        loss: called on each prefix.
        dims: prefix lengths; by default 64, 128, 256, 512 and 768 below the model's own width, plus that width; in late
            interaction 32, 64, 96 and 128 below it.
        weights: one per prefix, 1 by default. The loss is the weighted mean, so its size does not grow with the number
            of prefixes and a clipping norm keeps its meaning.
        dims_per_step: prefixes drawn at random in each step, without replacement; None takes all. The drawn ones stand
            for all, so that the loss is right on average.
    """

    on_cosines = True  # prefixes are renormalised, the whole embedding among them

    def __init__(
        self,
        loss: nn.Module,
        dims: Sequence[Annotated[int, Field(ge=1)]] | None = None,
        weights: Sequence[Annotated[float, Field(ge=0)]] | None = None,
        dims_per_step: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        if dims is not None and weights is not None and len(dims) != len(weights):
            raise ValueError(f"{len(dims)} dims and {len(weights)} weights; give one weight per dim")
        if dims is not None and not dims:
            raise ValueError("dims=[] name no prefix; list lengths, or null for 64, 128, … up to the model's own")
        if weights is not None and dims is None:
            raise ValueError("weights are given without dims; list the dims they belong to")
        if weights is not None and not any(weights):
            raise ValueError(f"weights={list(weights)} leave nothing to learn; give one dim a weight above 0")
        self.loss = loss
        self.dims = None if dims is None else tuple(dims)
        self.weights = None if weights is None else tuple(weights)
        self.dims_per_step = dims_per_step

    @property
    def temperature(self) -> Tensor:
        """The inner loss's temperature (a scalar)."""
        temperature: Tensor = self.loss.temperature  # type: ignore[assignment]  # a property of each loss
        return temperature

    def dims_of(self, width: int, single: bool = True) -> tuple[int, ...]:
        """Return the prefix lengths used for embeddings of a width, ascending.

        Args:
            width: dimensions of whole vectors.
            single: whether each text has one vector.

        Raises:
            ValueError: a configured dim exceeds the width.
        """
        if self.dims is None:
            return nested_dims(width, single)
        if max(self.dims) > width:
            raise ValueError(
                f"loss.dims has {max(self.dims)}, more than the model's {width} dimensions; lower it, or set null"
            )
        return self.dims

    def mass(self, relations: Relations) -> Tensor | None:
        """Return the inner loss's; None where each part of the queries would draw other dims."""
        mass: Callable[[Relations], Tensor | None] | None = getattr(self.loss, "mass", None)  # not every loss has one
        return None if mass is None or self.dims_per_step is not None else mass(relations)

    def forward(self, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations) -> Tensor:
        """Return the weighted mean of the loss over prefixes; arguments as the inner loss's.

        Draws from PyTorch's CPU generator when `dims_per_step` leaves some out; the trainer seeds it for each step.
        """
        dims = self.dims_of(queries.width, documents.single)
        shares = self.weights or (1.0,) * len(dims)
        chosen = self._draw(list(zip(dims, shares, strict=True)))
        losses = [share * self.loss(queries.cut(dim), documents.cut(dim), relations) for dim, share in chosen]
        # not by the drawn weights: their sum changes with the draw, and would cancel those of a prefix drawn alone
        total: Tensor = sum(losses) / (sum(shares) * len(chosen) / len(dims))
        return total

    def _draw(self, prefixes: list[tuple[int, float]]) -> list[tuple[int, float]]:
        if self.dims_per_step is None or self.dims_per_step >= len(prefixes):
            return prefixes
        rows = torch.randperm(len(prefixes))[: self.dims_per_step].tolist()
        return [prefixes[row] for row in sorted(rows)]
