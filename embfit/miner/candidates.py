"""Candidates: the documents that a source proposes as negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from embfit.miner.examples import TrainingQueries

UNRANKED = 0  # the rank of a document that does not come from a ranking


@dataclass(frozen=True)
class Candidates:
    """The documents that one source proposes for each query of some examples.

    Args:
        source: the source's name (`dense`), which is recorded with each negative.
        rows: [Q, K], document rows in the source's order (best first if it ranks); -1 where it found fewer than K.
        ranks: [Q, K], ranks in the source's ranking of the whole corpus, positives included; 1 is the best.
        scores: [Q, K] float32, higher is better; NaN if the source has no scores.
        positive_scores: the source's scores of the examples' positives, in the order of `examples.positives.values`.
        judged_scores: the source's scores of their judged negatives, in the order of `examples.judged.values`.
    """

    source: str
    rows: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    positive_scores: np.ndarray
    judged_scores: np.ndarray


Propose: TypeAlias = Callable[[TrainingQueries], Candidates]
"""A function that proposes documents for some of the examples that a source was prepared for."""


@dataclass(frozen=True)
class CandidateSource:
    """Where candidates come from.

    Args:
        name: the source's name, which is recorded with each negative.
        key: everything that the candidates depend on besides the collection: parameters and fingerprints of models.
        prepare: does the work that is done once for all examples, such as embedding them, and returns the function that
            proposes documents for some of them. It is called only if the store has no result.
    """

    name: str
    key: Mapping[str, Any]
    prepare: Callable[[TrainingQueries], Propose]


def ranks_of(rows: np.ndarray) -> np.ndarray:
    """Return the ranks of documents that are ordered best first: 1, 2, … in each row ([Q, K])."""
    return np.broadcast_to(np.arange(1, rows.shape[1] + 1, dtype=np.int32), rows.shape)


def unscored(source: str, rows: np.ndarray, examples: TrainingQueries) -> Candidates:
    """Return the candidates ([Q, K]) of a source that neither ranks nor scores."""
    return Candidates(
        source=source,
        rows=rows,
        ranks=np.full(rows.shape, UNRANKED),
        scores=np.full(rows.shape, np.nan, np.float32),
        positive_scores=np.full(len(examples.positives.values), np.nan, np.float32),
        judged_scores=np.full(len(examples.judged.values), np.nan, np.float32),
    )
