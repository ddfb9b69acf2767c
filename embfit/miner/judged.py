"""Negatives that the data itself names: a query's share of them, since pooled judgements run to hundreds a query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.ragged import Ragged

JUDGED = "judged"  # their source
MOST_JUDGED = 8  # of them, a query: a pair's own negatives are seldom more


@dataclass(frozen=True)
class Judged:
    """The judged negatives of some examples that become negatives.

    Args:
        rows: document rows by example.
        scores: flat, beside `rows.values`; NaN where the first source has none.
        unused: how many more were judged.
    """

    rows: Ragged
    scores: np.ndarray
    unused: int


def hardest(judged: Ragged, scores: np.ndarray, most: int | None, random: np.random.Generator | None) -> Judged:
    """Return at most `most` of each list, those that score highest; they keep their order.

    Args:
        judged: document rows by example.
        scores: flat, beside its values; what has none (NaN) comes last.
        most: of each list; None for all.
        random: decides between equal scores, and between none; without it, the first are taken.
    """
    if most is None:
        return Judged(judged, scores, 0)
    owners = judged.owners
    ties = np.arange(len(owners)) if random is None else random.permutation(len(owners))
    order = np.lexsort((ties, -np.where(np.isnan(scores), -np.inf, scores), owners))
    kept = np.empty(len(owners), bool)
    kept[order] = np.arange(len(owners)) - judged.offsets[owners] < most  # places in each list, hardest first
    rows = Ragged.from_owners(judged.values[kept], owners[kept], len(judged))
    return Judged(rows, scores[kept], int((~kept).sum()))
