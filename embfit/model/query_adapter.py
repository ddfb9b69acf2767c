"""A query adapter: a linear map of the query's vector alone, so that documents' vectors and indexes stay valid.

It is trained as the identity plus a product of two thin matrices, and kept as one square matrix, which
sentence-transformers computes as a `Dense` module on the query's route.
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
    """How a query adapter is trained in the place of the weights.

    Args:
        rank: the rank of the two matrices, whose product is added to the identity; None trains the weights.
        lr: the learning rate of AdamW.
        epochs: how many passes over the examples there are.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    lr: Annotated[float, Field(gt=0)] = 1e-3
    epochs: Annotated[int, Field(ge=1)] = 20


NO_QUERY_ADAPTER = QueryAdapterSettings()


class LowRankMap(nn.Module):
    """A map that begins as the identity: x → x + (x A) B, with A [D, R] and B [R, D] (Hu et al. 2021, eq. 3).

    Args:
        width: D.
        rank: R.
        generator: draws A; B begins as zero.
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
        """Return the matrix that rows are multiplied by ([D, D])."""
        return torch.eye(len(self.a)) + self.a @ self.b


def as_projection(matrix: Tensor) -> Projection:
    """Return the layer that multiplies rows by a matrix ([D_in, D_out])."""
    width_in, width_out = matrix.shape
    layer = Projection(
        {"in_features": width_in, "out_features": width_out, "bias": False, "activation_function": "Identity"}
    )
    layer.linear.weight.data = matrix.T.contiguous()
    return layer
