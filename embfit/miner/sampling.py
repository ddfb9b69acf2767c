"""Which of the candidates that passed the filters are taken: masks in, masks out, within each query's quota."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Sampling: TypeAlias = Literal["top", "uniform", "weighted"]


def sample(
    passed: np.ndarray, quotas: np.ndarray, sampling: Sampling, random: np.random.Generator, scores: np.ndarray
) -> np.ndarray:
    """Take candidates.

    Args:
        passed: [Q, K], true where a candidate may be taken; the best candidates stand first.
        quotas: [Q], the number of candidates to take at most; if fewer passed, fewer are taken.
        sampling: the rule: `top` takes the first, `uniform` any with equal chance, `weighted` any by score.
        random: the generator that `uniform` and `weighted` draw from.
        scores: [Q, K], the scores that `weighted` uses.

    Returns:
        [Q, K], true where a candidate is taken.
    """
    if sampling == "top":
        return top(passed, quotas)
    return uniform(passed, quotas, random) if sampling == "uniform" else weighted(passed, quotas, random, scores)


def top(passed: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Take each query's first candidates that passed."""
    taken: np.ndarray = passed & (np.cumsum(passed, axis=1) <= quotas[:, None])
    return taken


def uniform(passed: np.ndarray, quotas: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Take candidates in a random order, so that every set of a given size is equally likely."""
    return _lowest(random.random(passed.shape), passed, quotas)


def weighted(passed: np.ndarray, quotas: np.ndarray, random: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """Take candidates one after the other, each with a probability proportional to `exp(z)` among those left.

    `z` standardises the score over the query's candidates that passed (minus their mean, divided by their standard
    deviation), so that one rule fits the scales of all sources. The Gumbel trick (Vieira 2014; Kool et al. 2019) draws
    all of them at once.
    """
    known = np.where(passed, scores, 0.0).astype(np.float64)
    count = np.maximum(passed.sum(axis=1, keepdims=True), 1)
    centred = np.where(passed, known - known.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    z = centred / np.where(spread > 0, spread, 1.0)
    return _lowest(-z - random.gumbel(size=passed.shape), passed, quotas)


def _lowest(keys: np.ndarray, passed: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Take each query's candidates with the lowest keys ([Q, K])."""
    order = np.argsort(np.where(passed, keys, np.inf), axis=1)
    taken = np.empty(passed.shape, bool)
    np.put_along_axis(taken, order, top(np.take_along_axis(passed, order, axis=1), quotas), axis=1)
    return taken


def distinct(count: int, population: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Draw `count` samples of `size` different numbers below `population`.

    Floyd's algorithm (Bentley 1987, "A sample of brilliance"), for all samples at once.

    Args:
        count: the number of samples.
        population: the numbers to draw from are 0 to `population` - 1.
        size: the numbers in one sample.
        random: the generator to draw from.

    Returns:
        [count, size] int64; the order of the numbers in a sample is not random.
    """
    drawn = np.empty((count, size), np.int64)
    for place, highest in enumerate(range(population - size, population)):
        pick = random.integers(0, highest, count, endpoint=True)
        repeated = (drawn[:, :place] == pick[:, None]).any(axis=1)
        drawn[:, place] = np.where(repeated, highest, pick)
    return drawn
