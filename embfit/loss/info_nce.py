"""InfoNCE: the softmax over all documents of a batch."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional


class InfoNCE(nn.Module):
    """Softmax cross-entropy of each query against every document of the batch (van den Oord et al. 2018, eq. 4).

    A query with several positives counts once for each: every positive is classified against the negatives alone, so
    positives of one query never compete. The loss is the mean over (query, positive) pairs, weighted by query.

    Args:
        temperature: divides cosine similarities; typical 0.01 to 0.1. Lower is harder.
        learn_temperature: start from `temperature` and train its logarithm (Radford et al. 2021).
        symmetric: also classify the query of each positive document among the batch's queries, at equal weight.
    """

    def __init__(
        self,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        learn_temperature: bool = False,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.symmetric = symmetric
        log_temperature = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)

    @property
    def temperature(self) -> Tensor:
        """The temperature in force (a scalar)."""
        return self.log_temperature.exp()

    def forward(
        self, queries: Tensor, documents: Tensor, positives: Tensor, ignored: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a batch (a scalar).

        Shapes:
            queries [Q, H] and documents [D, H], float32 rows of unit length; positives [Q, D] bool; ignored [Q, D]
            bool, pairs that are neither positive nor negative; weights [Q], 1 by default.

        Raises:
            ValueError: a query has no positive among the documents.
        """
        if not positives.any(dim=1).all():
            raise ValueError("every query needs a positive among the documents")
        scores = queries @ documents.T / self.temperature  # [Q, D]
        weights = torch.ones_like(scores[:, 0]) if weights is None else weights
        excluded = positives | ignored
        loss = _classify(scores, positives, excluded, weights)
        if self.symmetric:
            loss = (loss + _classify(scores.T, positives.T, excluded.T, weights, by_row=False)) / 2
        return loss


def _classify(scores: Tensor, positives: Tensor, excluded: Tensor, weights: Tensor, by_row: bool = True) -> Tensor:
    """Classify each positive of a row against the row's negatives: scores [R, C] → the weighted mean over positives."""
    # the smallest float, not -inf: a row without any negative then has loss and gradient 0 instead of NaN
    negatives = scores.masked_fill(excluded, torch.finfo(scores.dtype).min).logsumexp(dim=1, keepdim=True)  # [R, 1]
    losses = functional.softplus(negatives - scores)  # [R, C]: -log of the positive's share
    pairs = positives * (weights[:, None] if by_row else weights[None, :])  # [R, C]
    return (losses * pairs).sum() / pairs.sum()
