"""Which of the candidates that passed are taken: masks in, masks out, never more than each query's quota."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Sampling: TypeAlias = Literal["top", "uniform", "weighted"]


def sample(
    passed: np.ndarray, quotas: np.ndarray, sampling: Sampling, random: np.random.Generator, scores: np.ndarray
) -> np.ndarray:
    """Take candidates.

    Args:
        passed: [Q, K], true where a candidate may be taken; best first.
        quotas: [Q], how many to take at most; where fewer passed, fewer are taken.
        sampling: `top` takes the first, `uniform` any with equal chance, `weighted` any by score.
        random: draws for the other two.
        scores: [Q, K], for `weighted`.

    Returns:
        [Q, K], true where a candidate is taken.
    """
    if sampling == "top":
        return top(passed, quotas)
    return uniform(passed, quotas, random) if sampling == "uniform" else weighted(passed, quotas, random, scores)


def top(passed: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Take the first."""
    taken: np.ndarray = passed & (np.cumsum(passed, axis=1) <= quotas[:, None])
    return taken


def uniform(passed: np.ndarray, quotas: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Take any, each set of a size with equal chance: those that come first in a random order."""
    return _lowest(random.random(passed.shape), passed, quotas)


def weighted(passed: np.ndarray, quotas: np.ndarray, random: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """Take any, one after the other, each with a chance in proportion to `exp(z)` among those that are left.

    `z` is the score less the mean of the query's candidates that passed, over their standard deviation, so that one
    rule fits the scales of all sources. Drawn at once by the Gumbel trick (Vieira 2014; Kool et al. 2019).
    """
    known = np.where(passed, scores, 0.0).astype(np.float64)
    count = np.maximum(passed.sum(axis=1, keepdims=True), 1)
    centred = np.where(passed, known - known.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    z = centred / np.where(spread > 0, spread, 1.0)
    return _lowest(-z - random.gumbel(size=passed.shape), passed, quotas)


def _lowest(keys: np.ndarray, passed: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Take those of the lowest keys ([Q, K])."""
    order = np.argsort(np.where(passed, keys, np.inf), axis=1)
    taken = np.empty(passed.shape, bool)
    np.put_along_axis(taken, order, top(np.take_along_axis(passed, order, axis=1), quotas), axis=1)
    return taken


def distinct(count: int, population: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Draw `count` samples of `size` different numbers below `population` ([count, size] int64, in no random order).

    Floyd's algorithm (Bentley 1987, "A sample of brilliance"), for all samples at once.
    """
    drawn = np.empty((count, size), np.int64)
    for place, highest in enumerate(range(population - size, population)):
        pick = random.integers(0, highest, count, endpoint=True)
        repeated = (drawn[:, :place] == pick[:, None]).any(axis=1)
        drawn[:, place] = np.where(repeated, highest, pick)
    return drawn
