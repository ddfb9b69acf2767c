"""A training set with a teacher's scores of its positives and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from embfit.miner.miner import Mines
from embfit.miner.teacher_settings import TeacherSettings
from embfit.model import Encoder, EncoderTeacher, Teacher
from embfit.ragged import Ragged
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class ScoredMiner(TeacherSettings):
    """Adds a cross-encoder's scores to another miner's positives and negatives, for distillation.

    The cross-encoder does not change which negatives are chosen. If its folder holds models trained on folds, a query
    is scored by a fold that was not trained on it. `TeacherSettings` documents the cross-encoder's parameters.

    Args:
        miner: the miner that chooses the negatives.
    """

    miner: Mines

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the other miner's training set with a teacher's scores.

        Raises:
            ConfigError: the configuration names no cross-encoder.
            UserError: there is no training pair, or the cross-encoder cannot be found or read.
        """
        teacher = self.load_teacher(encoder)
        found = self.miner.mine(collection, encoder, store)
        documents = scored_documents(found)
        queries = np.asarray(found.rows["query"][:], np.int64)[documents.owners]
        scores = teacher.score(collection, np.stack([queries, documents.values], axis=1), store)
        return with_teacher_scores(found, Ragged(scores, documents.offsets).lists())

    def score_added(self, training_set: TrainingSet, mined: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return a training set with the teacher's scores of added documents, as `MinesWithScores` says."""
        return score_added_pairs(self.load_teacher(encoder), training_set, mined, store)


def scored_documents(training_set: TrainingSet) -> Ragged:
    """Return the documents that a teacher scores: each example's positives, followed by its negatives."""
    columns = zip(training_set.rows["positives"][:], training_set.rows["negatives"][:], strict=True)
    return Ragged.of([*positives, *negatives] for positives, negatives in columns)


def score_added_pairs(
    teacher: Teacher | EncoderTeacher, training_set: TrainingSet, mined: Collection, store: Store
) -> TrainingSet:
    """Have a teacher score the documents behind those of the collection that was mined; the other scores stay."""
    documents = scored_documents(training_set)
    added = np.flatnonzero(documents.values >= len(mined.corpus))
    queries = np.asarray(training_set.rows["query"][:], np.int64)[documents.owners]
    scores = np.array([score for row in training_set.rows["scores"][:] for score in row], np.float32)
    pairs = np.stack([queries, documents.values], axis=1)[added]
    scores[added] = teacher.score(training_set.collection, pairs, store)
    return with_teacher_scores(training_set, Ragged(scores, documents.offsets).lists())


def with_teacher_scores(training_set: TrainingSet, scores: Sequence[Sequence[float] | np.ndarray]) -> TrainingSet:
    """Return a training set with a teacher's scores.

    Args:
        training_set: the mined examples.
        scores: the scores of each example's positives, followed by those of its negatives.
    """
    from datasets import Dataset  # takes a second to import
    from datasets.table import InMemoryTable

    table = training_set.rows.data.table
    column = pa.array([np.asarray(one, np.float32) for one in scores], pa.list_(pa.float32()))
    place = table.schema.get_field_index("scores")
    rows = Dataset(InMemoryTable(table.set_column(place, table.schema.field(place), column)))
    count = sum(len(one) for one in scores)
    return replace(training_set, rows=rows, facts={**training_set.facts, "teacher_scores": count})
