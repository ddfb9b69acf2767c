"""InfoNCE: the softmax over all documents of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from embfit.loss.relations import Relations
from embfit.vectors import Vectors

LOWEST = 0.01  # of a learned temperature, as in CLIP: below it a batch's few hardest pairs are all that counts


class InfoNCE(nn.Module):
    """Softmax cross-entropy of each query against every document of the batch (van den Oord et al. 2018, eq. 4).

    A query with several positives counts once for each: every positive is classified against the negatives alone, so
    positives of one query never compete. The loss is the mean over (query, positive) pairs, weighted by query.

    Args:
        temperature: divides cosine similarities; typical 0.01 to 0.1. Lower is harder.
        learn_temperature: start from `temperature` and train the logarithm of what it has above 0.01, which it stays
            above (after Radford et al. 2021, section 2.5).
        symmetric: also classify the query of each positive document among the batch's queries, at equal weight.
        hardness: negatives count by the exponential of this times their cosine, at mean 1, so that near ones count
            more (Robinson et al. 2021, eq. 4); 0 counts all the same.
        query_query: a query's negatives are also the other queries (Li et al. 2023, eq. 2), but for those that it
            shares a relevant document with.
        document_document: a positive's negatives are also the other documents, but for those relevant to its query.
        lexical: BM25's scores, times this, are added to the scores that are classified (after CLEAR: Gao et al. 2021),
            so that the vectors learn what words do not say; 0 adds none. It trains a model that is served together with
            BM25.
    """

    fixed_temperature: Tensor

    def __init__(
        self,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        learn_temperature: bool = False,
        symmetric: bool = False,
        hardness: Annotated[float, Field(ge=0)] = 0.0,
        query_query: bool = False,
        document_document: bool = False,
        lexical: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__()
        if lexical and (query_query or document_document):
            raise ValueError(
                f"lexical={lexical} is of queries and documents, and query_query and document_document compare two of "
                "a kind; set those to false"
            )
        self.lexical = lexical
        self.symmetric = symmetric
        self.hardness = hardness
        self.query_query = query_query
        self.document_document = document_document
        if learn_temperature and temperature <= LOWEST:
            raise ValueError(f"temperature={temperature} cannot be learnt: it stays above {LOWEST}; start from more")
        self.log_excess = nn.Parameter(torch.tensor(math.log(temperature - LOWEST))) if learn_temperature else None
        self.register_buffer("fixed_temperature", torch.tensor(temperature), persistent=False)

    @property
    def reads_words(self) -> bool:
        """Whether a batch must have BM25's scores."""
        return self.lexical > 0

    @property
    def on_cosines(self) -> bool:
        """Whether scores are sharpened as cosines need it: raw products would leave nothing but the largest."""
        return self.temperature.item() < 1

    @property
    def temperature(self) -> Tensor:
        """The temperature in force (a scalar)."""
        return self.fixed_temperature if self.log_excess is None else LOWEST + self.log_excess.exp()

    def mass(self, relations: Relations) -> Tensor | None:
        """Return the weight of the pairs that the loss is the mean of; None where it needs all queries at once."""
        if self.symmetric or self.query_query or self.document_document:
            return None
        return relations.positives.sum(dim=1, dtype=torch.float32) @ relations.weights

    def forward(self, queries: Vectors[Tensor], documents: Vectors[Tensor], relations: Relations) -> Tensor:
        """Return the loss of a batch (a scalar).

        Shapes:
            Q queries and D documents, float32 vectors of unit length; a teacher's scores are not used.

        Raises:
            ValueError: a query has no positive among the documents; a GPU is not asked, since it would be waited for.
        """
        positives, weights = relations.positives, relations.weights
        if positives.device.type == "cpu" and not positives.any(dim=1).all():
            raise ValueError("every query needs a positive among the documents")
        similarities = queries.scores(documents)  # [Q, D]
        scores = relations.with_words(similarities / self.temperature, self.lexical)  # [Q, D]
        excluded = positives | relations.ignored
        beside = self._beside(queries, documents, positives, excluded)
        hardened = self._hardened(scores, similarities, excluded)
        loss = _classify(hardened, scores, positives, excluded, weights[:, None], beside)
        if self.symmetric:
            hardened = self._hardened(scores.T, similarities.T, excluded.T)
            backwards = _classify(hardened, scores.T, positives.T, excluded.T, weights[None, :])
            loss = (loss + backwards) / 2
        return loss

    def _hardened(self, scores: Tensor, similarities: Tensor, excluded: Tensor) -> Tensor:
        """Add to each score the logarithm of what it counts as a negative ([R, C])."""
        if self.hardness == 0:
            return scores
        extra = (self.hardness * similarities).detach()  # a weight, not a term to learn
        negatives = (~excluded).sum(dim=1, keepdim=True).clamp(min=1)
        return scores + extra - _log_sum(extra, excluded) + negatives.log()

    def _beside(
        self, queries: Vectors[Tensor], documents: Vectors[Tensor], positives: Tensor, excluded: Tensor
    ) -> list[Tensor]:
        """Return the log-sum-exp of negatives that are not (query, document) pairs: [Q, 1] and [1, D]."""
        beside = []
        labels, known = positives.float(), excluded.float()
        if self.query_query:
            related = (known @ labels.T) + (labels @ known.T) > 0  # [Q, Q], itself included
            beside.append(_log_sum(queries.scores(queries) / self.temperature, related))
        if self.document_document:
            related = labels.T @ known > 0  # [D, D]: relevant to a query whose positive the row is
            beside.append(_log_sum(documents.scores(documents) / self.temperature, related).T)
        return beside


def _log_sum(scores: Tensor, excluded: Tensor) -> Tensor:
    """Return the log-sum-exp over each row's entries that are not excluded: [R, C] → [R, 1]."""
    # the smallest float, not -inf: a row without any negative then has loss and gradient 0 instead of NaN
    return scores.masked_fill(excluded, torch.finfo(scores.dtype).min).logsumexp(dim=1, keepdim=True)


def _classify(
    hardened: Tensor,
    scores: Tensor,
    positives: Tensor,
    excluded: Tensor,
    weights: Tensor,
    beside: Sequence[Tensor] = (),
) -> Tensor:
    """Classify each positive of a row against the row's negatives.

    Args:
        hardened: [R, C] scores as negatives.
        scores: [R, C] scores as positives.
        positives: [R, C] bool.
        excluded: [R, C] bool: no negatives.
        weights: [R, 1] or [1, C].
        beside: log-sum-exps of further negatives, of shapes that broadcast to [R, C].

    Returns:
        The weighted mean over positives.
    """
    negatives = _log_sum(hardened, excluded)  # [R, 1]
    for further in beside:
        negatives = torch.logaddexp(negatives, further)  # [R, 1] or [R, C]
    losses = functional.softplus(negatives - scores)  # [R, C]: -log of the positive's share
    pairs = positives * weights  # [R, C]
    return (losses * pairs).sum() / pairs.sum().clamp(min=1e-9)  # a part of a batch may weigh nothing
