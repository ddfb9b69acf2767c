"""Distillation: a teacher's scores of (query, document) pairs as the target, where it has given any."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from embfit.loss.relations import Relations
from embfit.vectors import Vectors


class MarginMSE(nn.Module):
    """Squared error of the margin of positive over negative, against a teacher's margin (Hofstätter et al. 2020).

    Args:
        scale: cosines are multiplied by it before they are compared; about the teacher's spread of scores (a
            cross-encoder's logits span 10 or 20, cosines 2 at most).
    """

    needs_teacher = True

    def __init__(self, scale: Annotated[float, Field(gt=0)] = 10.0) -> None:
        super().__init__()
        self.scale = scale

    @property
    def on_cosines(self) -> bool:
        """Whether scores are scaled as cosines need it."""
        return self.scale > 1

    def mass(self, relations: Relations) -> Tensor:
        """Return the weight of the pairs that the loss is the mean of."""
        known = _required(relations).isfinite()  # [Q, D]
        positives = (known & relations.positives).sum(dim=1)
        negatives = (known & ~relations.positives).sum(dim=1)
        return (positives * negatives).float() @ relations.weights

    def forward(self, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations) -> Tensor:
        """Return the mean over (positive, negative) pairs of a query that the teacher has scored both.

        Shapes:
            as `InfoNCE`. Without any pair the loss is 0.
        """
        scores = self.scale * queries.scores(documents)  # [Q, D]
        errors, pairs = _margin_errors(scores, _required(relations), relations.positives)
        return errors @ relations.weights / (pairs @ relations.weights).clamp(min=1e-9)


class KL(nn.Module):
    """Divergence of the student's distribution over a query's scored documents from the teacher's (Hinton et al. 2015).

    Args:
        temperature: divides cosine similarities, as in `InfoNCE`.
        teacher_temperature: divides the teacher's scores; 1 suits a cross-encoder's logits.
        lexical: BM25's scores, times this, are added to the student's, as in `InfoNCE`; 0 adds none.
    """

    needs_teacher = True
    temperature: Tensor

    def __init__(
        self,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        teacher_temperature: Annotated[float, Field(gt=0)] = 1.0,
        lexical: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__()
        self.lexical = lexical
        self.register_buffer("temperature", torch.tensor(temperature), persistent=False)
        self.teacher_temperature = teacher_temperature

    @property
    def reads_words(self) -> bool:
        """Whether a batch must have BM25's scores."""
        return self.lexical > 0

    @property
    def on_cosines(self) -> bool:
        """Whether scores are sharpened as cosines need it."""
        return self.temperature.item() < 1

    def mass(self, relations: Relations) -> Tensor:
        """Return the weight of the queries that the loss is the mean of."""
        several = _required(relations).isfinite().sum(dim=1) > 1  # [Q]
        return several.float() @ relations.weights

    def forward(self, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations) -> Tensor:
        """Return the mean over queries of which the teacher has scored at least two documents.

        Shapes:
            as `InfoNCE`. Without such a query the loss is 0.
        """
        wanted = _required(relations)  # [Q, D]
        known = wanted.isfinite()  # [Q, D]
        scores = relations.with_words(queries.scores(documents) / self.temperature, self.lexical)  # [Q, D]
        lowest = torch.finfo(scores.dtype).min  # not -inf: a row that nothing is known of stays finite
        student = scores.masked_fill(~known, lowest).log_softmax(dim=1)
        target = (wanted / self.teacher_temperature).masked_fill(~known, lowest).log_softmax(dim=1)
        terms = (target.exp() * (target - student)).masked_fill(~known, 0.0)
        shares = relations.weights * (known.sum(dim=1) > 1)  # [Q]
        return (terms.sum(dim=1) * shares).sum() / shares.sum().clamp(min=1e-9)


class Distillation(nn.Module):
    """A loss on judgements and one on a teacher's scores, added.

    Args:
        loss: learns from judgements.
        teacher: learns from a teacher's scores.
        weight: the share of the teacher's loss; the other loss has the rest of 1.
    """

    def __init__(self, loss: nn.Module, teacher: nn.Module, weight: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None:
        super().__init__()
        self.loss = loss
        self.teacher = teacher
        self.weight = weight

    @property
    def temperature(self) -> Tensor:
        """The temperature of the loss on judgements (a scalar)."""
        temperature: Tensor = self.loss.temperature  # type: ignore[assignment]  # a property of each loss
        return temperature

    def forward(self, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations) -> Tensor:
        """Return the weighted mean of the two; arguments as theirs."""
        judged: Tensor = self.loss(queries, documents, relations)
        taught: Tensor = self.teacher(queries, documents, relations)
        return (1 - self.weight) * judged + self.weight * taught


def _required(relations: Relations) -> Tensor:
    if relations.teacher is None:
        raise ValueError("the batch has no teacher's scores")
    return relations.teacher


def _margin_errors(scores: Tensor, wanted: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Add up each query's squared errors of margins: Σp Σn (a_p - a_n)², with a = score - wanted score.

    That is N Σp a_p² + P Σn a_n² - 2 Σp a_p Σn a_n for P positives and N negatives. A list of the pairs would make a
    GPU wait for its length.

    Shapes:
        [Q, D] scores, the teacher's (not finite where there is none), bool → [Q] sums and [Q] numbers of pairs.
    """
    known = wanted.isfinite()
    apart = _centred(scores - _centred(wanted, known), known)  # around 0, no large squares cancel
    of_positives, of_negatives = (torch.where(mask, apart, 0.0) for mask in (positives, ~positives))
    many, others = ((known & mask).sum(dim=1).to(scores.dtype) for mask in (positives, ~positives))
    squares = others * of_positives.square().sum(dim=1) + many * of_negatives.square().sum(dim=1)
    return squares - 2 * of_positives.sum(dim=1) * of_negatives.sum(dim=1), many * others


def _centred(values: Tensor, known: Tensor) -> Tensor:
    """Move each query's known values around 0, which changes no margin; the others are 0."""
    values = torch.where(known, values, 0.0)
    mean = values.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(known, values - mean.detach(), 0.0)
