"""A teacher that can be trained (`Teaches`), and one that has been, which scores a training set (`TrainedTeacher`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from embfit.evaluator.systems import EvaluationContext
from embfit.miner.scored import scored_documents, with_teacher_scores
from embfit.model import EncoderTeacher, Teacher
from embfit.ragged import Ragged
from embfit.records import TrainingSet
from embfit.store import Store

if TYPE_CHECKING:
    import pytorch_lightning as pl


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher that has learnt.

    Args:
        model: scores pairs.
        weight: how much its scores count beside those that the miner gave.
        store: keeps its scores.
        facts: what its training counted, for the report.
    """

    model: Teacher | EncoderTeacher
    weight: float
    store: Store
    facts: Mapping[str, Any] = field(default_factory=dict)

    def score(self, training_set: TrainingSet) -> TrainingSet:
        """Return a training set with its scores; those that the miner gave (`miner=hybrid`) are added to them."""
        documents = scored_documents(training_set)
        queries = np.asarray(training_set.rows["query"][:], np.int64)[documents.owners]
        pairs = np.stack([queries, documents.values], axis=1)
        scores = np.float32(self.weight) * self.model.score(training_set.collection, pairs, self.store)
        given = np.array([score for row in training_set.rows["scores"][:] for score in row], np.float32)
        if len(given):
            scores = scores + given
        found = with_teacher_scores(training_set, Ragged(scores, documents.offsets).lists())
        return replace(found, facts={**found.facts, **self.facts})


class Teaches(Protocol):
    """A model that can be trained to teach; a class of a user's own says `gives_scores = True`."""

    gives_scores: ClassVar[bool]

    def learn(
        self,
        training_set: TrainingSet,
        context: EvaluationContext,
        dev: EvaluationContext | None,
        trainer: partial[pl.Trainer],
    ) -> TrainedTeacher:
        """Train on the pairs that it is to score.

        Args:
            training_set: what the miner made.
            context: has the encoder's own model, the devices and the store.
            dev: the split that chooses which weights are kept; None keeps the last ones.
            trainer: Lightning's Trainer, still to be given what the training owns.
        """
