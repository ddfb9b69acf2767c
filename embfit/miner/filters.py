"""Which candidates may become negatives: functions from arrays to masks that are true where a candidate passes.

A candidate that looks as relevant as a known positive may well be relevant and merely unjudged (most of MS MARCO's
top-ranked unjudged passages are: Qu et al. 2021, RocketQA). The margins remove such candidates. They are the
positive-aware limits TopK-PercPos and TopK-MarginPos of Moreira et al. 2024 (NV-Retriever).
"""

from __future__ import annotations

import numpy as np

from embfit.ragged import Ragged


def unknown(rows: np.ndarray, known: Ragged, copies: np.ndarray) -> np.ndarray:
    """Pass documents whose text differs from that of every known document of their query.

    Args:
        rows: [Q, K], the candidates' document rows.
        known: the document rows to exclude for each query.
        copies: [N], for each document row the first row with the same text.
    """
    pairs = np.arange(len(rows))[:, None] * len(copies) + copies[rows]  # [Q, K]: one number per query and text
    excluded = np.sort(known.owners * len(copies) + copies[known.values])
    if not len(excluded):
        return np.ones(rows.shape, bool)
    place = np.searchsorted(excluded, pairs)
    found: np.ndarray = excluded[np.minimum(place, len(excluded) - 1)] == pairs
    return ~found


def first_of_text(rows: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Pass the first of a query's candidates with the same text ([Q, K])."""
    texts = np.where(rows < 0, rows, copies[rows])  # an empty place has no text
    order = np.argsort(texts, axis=1, kind="stable")
    ordered = np.take_along_axis(texts, order, axis=1)
    passes = np.ones(rows.shape, bool)
    np.put_along_axis(passes, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return passes


def below(scores: np.ndarray, ceilings: np.ndarray | float) -> np.ndarray:
    """Pass scores ([Q, K]) up to a ceiling, which is one number for all queries or one per query ([Q])."""
    passes: np.ndarray = scores <= np.reshape(ceilings, (-1, 1))
    return passes


def at_least(scores: np.ndarray, floor: float) -> np.ndarray:
    """Pass scores ([Q, K]) of at least a floor."""
    passes: np.ndarray = scores >= floor
    return passes


def relative_ceilings(positive_scores: Ragged, margin: float) -> np.ndarray:
    """Return each query's ceiling `s - margin·|s|` ([Q]), where `s` is its lowest positive score.

    The share is taken of the absolute value, because `(1 - margin)·s` would raise the ceiling of a negative score.
    """
    lowest = lowest_of(positive_scores)
    ceilings: np.ndarray = lowest - np.float32(margin) * np.abs(lowest)
    return ceilings


def absolute_ceilings(positive_scores: Ragged, margin: float) -> np.ndarray:
    """Return each query's ceiling `s - margin` ([Q]), where `s` is its lowest positive score."""
    return lowest_of(positive_scores) - np.float32(margin)


def lowest_of(scores: Ragged) -> np.ndarray:
    """Return the lowest value of each list; no list may be empty.

    With the lowest of several positives the limit holds for every pair of a positive and a negative that the loss
    compares. The highest would admit negatives that score above a document known to be relevant.
    """
    lowest: np.ndarray = np.minimum.reduceat(scores.values, scores.offsets[:-1])
    return lowest
