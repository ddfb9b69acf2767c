"""Which of the candidates that passed are taken: masks in, masks out, never more than each query's quota."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Sampling: TypeAlias = Literal["top", "uniform"]


def sample(passed: np.ndarray, quotas: np.ndarray, sampling: Sampling, random: np.random.Generator) -> np.ndarray:
    """Take candidates.

    Args:
        passed: [Q, K], true where a candidate may be taken; best first.
        quotas: [Q], how many to take at most; where fewer passed, fewer are taken.
        sampling: `top` takes the first, `uniform` any with equal chance.
        random: draws for `uniform`.

    Returns:
        [Q, K], true where a candidate is taken.
    """
    return top(passed, quotas) if sampling == "top" else uniform(passed, quotas, random)


def top(passed: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Take the first."""
    taken: np.ndarray = passed & (np.cumsum(passed, axis=1) <= quotas[:, None])
    return taken


def uniform(passed: np.ndarray, quotas: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Take any, each set of a size with equal chance: those that come first in a random order."""
    keys = np.where(passed, random.random(passed.shape), np.inf)
    order = np.argsort(keys, axis=1)
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
