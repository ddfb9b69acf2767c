"""Which candidates may become negatives: functions from arrays to masks, true where a candidate passes.

A candidate that looks as relevant as a known positive may well be relevant and merely unjudged (of MS MARCO's
top-ranked unjudged passages most are: Qu et al. 2021, RocketQA). The margins remove it: they are the positive-aware
limits TopK-PercPos and TopK-MarginPos of Moreira et al. 2024 (NV-Retriever).
"""

from __future__ import annotations

import numpy as np

from embfit.ragged import Ragged


def unknown(rows: np.ndarray, known: Ragged, copies: np.ndarray) -> np.ndarray:
    """Pass documents whose text is none of their query's known documents.

    Args:
        rows: [Q, K] document rows.
        known: for each query, the document rows to exclude.
        copies: for each document row, the first row with its text.
    """
    pairs = np.arange(len(rows))[:, None] * len(copies) + copies[rows]  # [Q, K]: one number per query and text
    excluded = np.sort(known.owners * len(copies) + copies[known.values])
    if not len(excluded):
        return np.ones(rows.shape, bool)
    place = np.searchsorted(excluded, pairs)
    found: np.ndarray = excluded[np.minimum(place, len(excluded) - 1)] == pairs
    return ~found


def first_of_text(rows: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Pass the first of several candidates of one query that have the same text ([Q, K])."""
    texts = np.where(rows < 0, rows, copies[rows])  # an empty place has no text
    order = np.argsort(texts, axis=1, kind="stable")
    ordered = np.take_along_axis(texts, order, axis=1)
    passes = np.ones(rows.shape, bool)
    np.put_along_axis(passes, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return passes


def below(scores: np.ndarray, ceilings: np.ndarray | float) -> np.ndarray:
    """Pass scores ([Q, K]) of at most a ceiling, one for all or one per query ([Q])."""
    passes: np.ndarray = scores <= np.reshape(ceilings, (-1, 1))
    return passes


def at_least(scores: np.ndarray, floor: float) -> np.ndarray:
    """Pass scores ([Q, K]) of at least a floor."""
    passes: np.ndarray = scores >= floor
    return passes


def relative_ceilings(positive_scores: Ragged, margin: float) -> np.ndarray:
    """Return each query's lowest positive score less a share of its size, `s - margin·|s|` ([Q]).

    Less the share of its absolute value: `(1 - margin)·s` would raise the ceiling of a negative score.
    """
    lowest = lowest_of(positive_scores)
    ceilings: np.ndarray = lowest - np.float32(margin) * np.abs(lowest)
    return ceilings


def absolute_ceilings(positive_scores: Ragged, margin: float) -> np.ndarray:
    """Return each query's lowest positive score less a margin ([Q])."""
    return lowest_of(positive_scores) - np.float32(margin)


def lowest_of(scores: Ragged) -> np.ndarray:
    """Return the lowest value of each list, none of them empty.

    The lowest of several positives makes the limit hold for every pair of a positive and a negative that the loss will
    compare; the highest would admit negatives that score above a document known to be relevant.
    """
    lowest: np.ndarray = np.minimum.reduceat(scores.values, scores.offsets[:-1])
    return lowest
