"""Negatives as the Arrow rows of a training set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from embfit.miner.candidates import UNRANKED
from embfit.miner.examples import TrainingQueries
from embfit.miner.selection import Negatives
from embfit.ragged import Ragged

SCHEMA = pa.schema(
    {
        "query": pa.int32(),
        "positives": pa.list_(pa.int32()),
        "negatives": pa.list_(pa.int32()),
        "scores": pa.list_(pa.float32()),
        "weight": pa.float32(),
        "source": pa.string(),
        "positive_scores": pa.list_(pa.float32()),
        "negative_scores": pa.list_(pa.float32()),
        "negative_ranks": pa.list_(pa.int32()),
        "negative_sources": pa.list_(pa.string()),
    }
)
"""The columns of `TrainingSet.rows`, and then what mining adds: the source's scores of positives and negatives (null if
it has none), ranks in the whole corpus counted from 1 (null for judged and random negatives), and each negative's
source."""


def training_rows(examples: TrainingQueries, found: Negatives, miner: str) -> pa.RecordBatch:
    """Return a block of examples with their negatives as rows of a training set, without the examples to be dropped.

    Args:
        examples: the block's training queries.
        found: their negatives.
        miner: the miner's name, which becomes the rows' `source`.
    """
    count = len(examples)
    positive_scores = next(iter(found.positive_scores.values()))
    nothing = Ragged(np.empty(0, np.float32), np.zeros(count + 1, np.int64))  # there are no teacher scores yet
    columns = {
        "query": pa.array(examples.queries),
        "positives": _lists(examples.positives),
        "negatives": _lists(found.rows),
        "scores": _lists(nothing),
        "weight": pa.array(np.ones(count, np.float32)),
        "source": pa.array([miner] * count),
        "positive_scores": _beside(examples.positives, positive_scores, np.isnan(positive_scores)),
        "negative_scores": _beside(found.rows, found.scores, np.isnan(found.scores)),
        "negative_ranks": _beside(found.rows, found.ranks, found.ranks == UNRANKED),
        "negative_sources": _beside(found.rows, found.sources),
    }
    return pa.record_batch(columns, schema=SCHEMA).filter(pa.array(~found.dropped))


def _lists(lists: Ragged, missing: np.ndarray | None = None) -> pa.ListArray:
    """Return an Arrow column of lists, with nulls for missing values."""
    return pa.ListArray.from_arrays(lists.offsets.astype(np.int32), pa.array(lists.values, mask=missing))


def _beside(lists: Ragged, values: np.ndarray, missing: np.ndarray | None = None) -> pa.ListArray:
    """Return an Arrow column with one value for each value of another column of lists."""
    return _lists(Ragged(values, lists.offsets), missing)
