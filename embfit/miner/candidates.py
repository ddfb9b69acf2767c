"""What a source proposes: documents that may become negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from embfit.miner.examples import TrainingQueries

UNRANKED = 0  # rank of a document that came from no ranking


@dataclass(frozen=True)
class Candidates:
    """Documents that one source proposes for each query of some examples.

    Args:
        source: its name (`dense`), recorded with each negative.
        rows: [Q, K] document rows, in the source's order (best first, if it ranks); -1 where it found fewer than K.
        ranks: [Q, K] places in the source's ranking of the whole corpus, 1 being the best, positives included.
        scores: [Q, K] float32, higher is better; NaN from a source that has none.
        positive_scores: the same source's scores of the examples' positives, flat (`examples.positives.values`).
        judged_scores: and of their judged negatives, flat (`examples.judged.values`).
    """

    source: str
    rows: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    positive_scores: np.ndarray
    judged_scores: np.ndarray


Propose: TypeAlias = Callable[[TrainingQueries], Candidates]
"""Proposes documents for some of the examples that a source was prepared for."""


@dataclass(frozen=True)
class CandidateSource:
    """Where candidates come from.

    Args:
        name: recorded with each negative.
        key: everything that the candidates depend on besides the collection: parameters, fingerprints of models.
        prepare: does what is done once for all examples (embedding them, say) and returns what proposes documents for
            some; called only when the store has no result.
    """

    name: str
    key: Mapping[str, Any]
    prepare: Callable[[TrainingQueries], Propose]


def ranks_of(rows: np.ndarray) -> np.ndarray:
    """Return the ranks of documents that stand best first: 1, 2, … in each row ([Q, K])."""
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
