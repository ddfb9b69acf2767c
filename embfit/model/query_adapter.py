"""A query adapter: a linear map of query vectors only, so that document vectors and indexes stay valid.

It is trained as the identity plus a product of two thin matrices, and saved as one square matrix, which
sentence-transformers reads as a `Dense` module on the route of queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from embfit.model.projection import Projection


@dataclass(frozen=True)
class QueryAdapterSettings:
    """The settings of a query adapter that is trained instead of the weights.

    Args:
        rank: the rank of the two matrices, whose product is added to the identity; None trains the weights.
        lr: the learning rate of AdamW.
        epochs: the number of passes over the examples.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    lr: Annotated[float, Field(gt=0)] = 1e-3
    epochs: Annotated[int, Field(ge=1)] = 20


NO_QUERY_ADAPTER = QueryAdapterSettings()


class LowRankMap(nn.Module):
    """A map that starts as the identity: x → x + (x A) B, with A [D, R] and B [R, D] (Hu et al. 2021, eq. 3).

    Args:
        width: D.
        rank: R.
        generator: draws A; B starts as zero.
    """

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(width, rank, generator=generator) / width**0.5)
        self.b = nn.Parameter(torch.zeros(rank, width))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map [N, D] to [N, D]."""
        return vectors + vectors @ self.a @ self.b

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """Return the matrix of the map, by which rows are multiplied ([D, D])."""
        return torch.eye(len(self.a)) + self.a @ self.b


def as_projection(matrix: Tensor) -> Projection:
    """Return the layer that multiplies rows by a matrix ([D_in, D_out])."""
    width_in, width_out = matrix.shape
    layer = Projection(
        {"in_features": width_in, "out_features": width_out, "bias": False, "activation_function": "Identity"}
    )
    layer.linear.weight.data = matrix.T.contiguous()
    return layer
