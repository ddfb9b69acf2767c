"""Losses of a cross-encoder: on scores of the documents in each query's list, relevant ones and negatives."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional


class Listwise(nn.Module):
    """Softmax cross-entropy of each positive against the negatives of its list (ListNet's top-one, Cao et al. 2007).

    Positives of one query never compete. The loss is the mean over positives, weighted by query; a list without
    negatives says nothing, and does not count.

    Args:
        temperature: divides scores.
    """

    on_lists = True

    def __init__(self, temperature: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, scores: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch (a scalar), 0 if no list has a negative.

        Shapes:
            scores [Q, L] float32; positives and negatives [Q, L] bool, neither where a shorter list has no document;
            weights [Q], 1 by default.
        """
        scores = scores / self.temperature
        # the smallest float, not -inf: a list without negatives then has gradient 0 instead of NaN
        lowest = torch.finfo(scores.dtype).min
        against = scores.masked_fill(~negatives, lowest).logsumexp(dim=1, keepdim=True)  # [Q, 1]
        losses = functional.softplus(against - scores)  # [Q, L]: -log of the positive's share
        shares = positives * _weights(weights, scores) * negatives.any(dim=1, keepdim=True)  # [Q, L]
        return _mean(losses, shares)


class Binary(nn.Module):
    """Cross-entropy of each document alone: relevant or not (Nogueira and Cho 2019).

    Scores are then log-odds, comparable across queries; the order within one is learnt less directly.

    Args:
        positive_weight: how much a positive counts, where a negative counts 1; the number of negatives per positive
            balances the two.
    """

    on_lists = True

    def __init__(self, positive_weight: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__()
        self.positive_weight = positive_weight

    def forward(self, scores: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the weighted mean over documents (a scalar); shapes as `Listwise`."""
        losses = functional.binary_cross_entropy_with_logits(scores, positives.to(scores.dtype), reduction="none")
        shares = (self.positive_weight * positives + negatives.to(scores.dtype)) * _weights(weights, scores)  # [Q, L]
        return _mean(losses, shares)


def _weights(weights: Tensor | None, scores: Tensor) -> Tensor:
    """Return weights as a column ([Q, 1])."""
    return torch.ones_like(scores[:, :1]) if weights is None else weights[:, None]


def _mean(losses: Tensor, shares: Tensor) -> Tensor:
    return (losses * shares).sum() / shares.sum().clamp(min=torch.finfo(losses.dtype).tiny)
