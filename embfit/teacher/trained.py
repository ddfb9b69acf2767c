"""The interface of a teacher before training (`Teaches`), and a trained one that scores a training set."""

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
    """A trained teacher.

    Args:
        model: scores pairs.
        weight: the factor of its scores when they are added to those of the miner.
        store: keeps its scores.
        facts: facts about its training, for the report.
    """

    model: Teacher | EncoderTeacher
    weight: float
    store: Store
    facts: Mapping[str, Any] = field(default_factory=dict)

    def score(self, training_set: TrainingSet) -> TrainingSet:
        """Return a training set with its scores, added to those of the miner (`miner=hybrid`) if there are any."""
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
    """A model that can be trained as a teacher; a user's own class sets `gives_scores = True`."""

    gives_scores: ClassVar[bool]

    def learn(
        self,
        training_set: TrainingSet,
        context: EvaluationContext,
        dev: EvaluationContext | None,
        trainer: partial[pl.Trainer],
    ) -> TrainedTeacher:
        """Train the teacher on the pairs that it will score.

        Args:
            training_set: what the miner made.
            context: the encoder's model, the devices and the store.
            dev: the split that chooses which weights are kept; None keeps the last ones.
            trainer: makes Lightning's Trainer from the arguments that training adds.
        """
