"""Negatives chosen by a cross-encoder: another source's candidates, in the cross-encoder's order and margins."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.miner.candidates import Candidates, CandidateSource, Propose, ranks_of
from embfit.miner.dense import DenseMiner
from embfit.miner.examples import TrainingQueries
from embfit.miner.miner import RankedMiner
from embfit.miner.scored import score_added_pairs, with_teacher_scores
from embfit.miner.teacher_settings import TeacherSettings
from embfit.model import Encoder, EncoderTeacher, Teacher
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class CrossEncoderMiner(TeacherSettings, RankedMiner):
    """Reranks another miner's candidates, and gives its scores to losses that learn from a teacher.

    `RankedMiner` and `TeacherSettings` document the other parameters. Ranks, margins and `max_score` refer to the
    cross-encoder's scores. If the cross-encoder's folder holds models trained on folds, a query is scored by a fold
    that was not trained on it.

    Args:
        absolute_margin: a negative may score at most the lowest score of a positive minus this margin, in logits; None
            sets no such limit.
        depth: the number of candidates per query to rerank.
        candidates: the miner that finds the candidates; its filters and sampling are not used.
    """

    absolute_margin: Annotated[float, Field(ge=0)] | None = 0.0
    depth: Annotated[int, Field(ge=1)] = 30
    candidates: RankedMiner = field(default_factory=DenseMiner)

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return the candidates in the cross-encoder's order; scores are stored under its fingerprint.

        Raises:
            ConfigError: the configuration names no cross-encoder.
            UserError: the cross-encoder cannot be found or read.
        """
        found = replace(self.candidates, depth=self.depth, negatives=1, skip=0).source(collection, encoder, store)
        teacher = self.load_teacher(encoder)

        def prepare(examples: TrainingQueries) -> Propose:
            propose = found.prepare(examples)

            def rerank(part: TrainingQueries) -> Candidates:
                return reranked(part, propose(part), teacher, collection, store)

            return rerank

        key = {"candidates": {"source": found.name, **found.key}, "teacher": teacher.fingerprint}
        return CandidateSource("cross-encoder", key, prepare)

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training set with the cross-encoder's negatives and its scores for distillation."""
        found = super().mine(collection, encoder, store)
        columns = zip(found.rows["positive_scores"][:], found.rows["negative_scores"][:], strict=True)
        return with_teacher_scores(found, [[*positives, *negatives] for positives, negatives in columns])

    def score_added(self, training_set: TrainingSet, mined: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return a training set with the cross-encoder's scores of added documents, as `MinesWithScores` says."""
        return score_added_pairs(self.load_teacher(encoder), training_set, mined, store)


def reranked(
    examples: TrainingQueries,
    candidates: Candidates,
    teacher: Teacher | EncoderTeacher,
    collection: Collection,
    store: Store,
) -> Candidates:
    """Return another source's candidates in a cross-encoder's order; the pairs of all queries are scored together."""
    places = np.nonzero(candidates.rows >= 0)
    owners = (places[0], examples.positives.owners, examples.judged.owners)
    documents = (candidates.rows[places], examples.positives.values, examples.judged.values)
    pairs = np.stack([examples.queries[np.concatenate(owners)], np.concatenate(documents)], axis=1)
    scores = teacher.score(collection, pairs, store)
    mined, positive_scores, judged_scores = np.split(scores, np.cumsum([len(one) for one in documents])[:-1])
    matrix = np.full(candidates.rows.shape, np.nan, np.float32)
    matrix[places] = mined
    order = np.argsort(-matrix, axis=1, kind="stable")  # NaN goes last, where a source found fewer
    rows = np.take_along_axis(candidates.rows, order, axis=1)
    return Candidates(
        source="cross-encoder",
        rows=rows,
        ranks=ranks_of(rows),
        scores=np.take_along_axis(matrix, order, axis=1),
        positive_scores=positive_scores,
        judged_scores=judged_scores,
    )
