"""Negatives from the data's own judgements, limited per query: pooled judgements run to hundreds of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.ragged import Ragged

JUDGED = "judged"  # the name of their source
MOST_JUDGED = 8  # per query; rows of pairs seldom give more


@dataclass(frozen=True)
class JudgedNegatives:
    """The judged negatives of some examples that become negatives.

    Args:
        rows: the document rows of each example's judged negatives.
        scores: the first source's score of each document in `rows.values`; NaN if it has none.
        unused: the number of judged negatives beyond the limit.
    """

    rows: Ragged
    scores: np.ndarray
    unused: int


def hardest_judged(
    judged: Ragged, scores: np.ndarray, most: int | None, random: np.random.Generator | None
) -> JudgedNegatives:
    """Return the highest-scoring judged negatives of each example, in their given order.

    Args:
        judged: the document rows of each example's judged negatives.
        scores: the score of each document in `judged.values`; documents without one (NaN) come last.
        most: the judged negatives to keep per example; None keeps all.
        random: the generator that decides between equal or missing scores; without it, the first ones are kept.
    """
    if most is None:
        return JudgedNegatives(judged, scores, 0)
    owners = judged.owners
    ties = np.arange(len(owners)) if random is None else random.permutation(len(owners))
    order = np.lexsort((ties, -np.where(np.isnan(scores), -np.inf, scores), owners))
    kept = np.empty(len(owners), bool)
    kept[order] = np.arange(len(owners)) - judged.offsets[owners] < most  # places in each list, hardest first
    rows = Ragged.from_owners(judged.values[kept], owners[kept], len(judged))
    return JudgedNegatives(rows, scores[kept], int((~kept).sum()))
