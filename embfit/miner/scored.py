"""A training set with a teacher's scores of its positives and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from embfit.errors import ConfigError
from embfit.hints import Location
from embfit.miner.miner import Mines
from embfit.model import Encoder, load_teacher
from embfit.model.precision import Precision
from embfit.ragged import Ragged
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class ScoredMiner:
    """Adds a cross-encoder's scores to another miner's positives and negatives, for distillation.

    The cross-encoder does not change which negatives are chosen. If its folder holds models trained on folds, a query
    is scored by a fold that was not trained on it.

    Args:
        miner: the miner that chooses the negatives.
        model: the cross-encoder's folder or its name on the Hub.
        revision: a branch, tag or commit of the model on the Hub; None is its main branch.
        trust_remote_code: whether to run Python code that comes with the model.
        max_length: the tokens read of a pair; None is the cross-encoder's own limit, 512 at most.
        precision: the number format in which the cross-encoder computes.
    """

    miner: Mines
    model: Annotated[str | None, Location(required=True)] = None
    revision: str | None = None
    trust_remote_code: bool = False
    max_length: Annotated[int, Field(ge=8)] | None = None
    precision: Precision = "auto"

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the other miner's training set with a teacher's scores.

        Raises:
            ConfigError: the configuration names no cross-encoder.
            UserError: there is no training pair, or the cross-encoder cannot be found or read.
        """
        if self.model is None:
            raise ConfigError("miner=scored needs a cross-encoder: miner.model=FOLDER_OR_NAME")
        teacher = load_teacher(
            self.model, self.max_length, self.precision, str(encoder.device), self.revision, self.trust_remote_code
        )
        found = self.miner.mine(collection, encoder, store)
        columns = zip(found.rows["positives"][:], found.rows["negatives"][:], strict=True)
        documents = Ragged.of([*positives, *negatives] for positives, negatives in columns)
        queries = np.asarray(found.rows["query"][:], np.int64)[documents.owners]
        scores = teacher.score(collection, np.stack([queries, documents.values], axis=1), store)
        return with_teacher_scores(found, Ragged(scores, documents.offsets).lists())


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
