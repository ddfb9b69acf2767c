"""Could the difference between two systems be chance? Paired tests over queries, for any metric's differences.

A percentile bootstrap over queries gives the interval (Efron and Tibshirani 1993, chapter 13; for retrieval, Sakai
2006). Its percentiles are expanded for small numbers of queries (Hesterberg 2015, the expanded percentile interval):
the variance of resampled means is too small by the factor (n - 1) / n, and the variance itself is an estimate. With
fewer than `FEWEST` queries the interval would still be too narrow, and contradict p, so there is none. A randomisation
test gives the p-value (Smucker, Allan and Carterette 2007, who find that it agrees with bootstrap and t-test). The
queries are treated as a sample of those that users will ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

FEWEST = 20  # queries that an interval needs
CELLS = 4_000_000  # resampled values in memory at once, about 50 MB
ROUNDING = 1e-12  # sums of the same values in another order may differ by this much
TIE = 1e-9  # metric values closer than this are equal


def bootstrap_interval(
    differences: np.ndarray, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of the mean difference, resampling queries with replacement; None for fewer than `FEWEST`.

    Args:
        differences: one paired difference a query ([Q]).
        samples: how many resamples are drawn.
        seed: seeds the draws.
        confidence: the share of intervals that hold the true mean.

    Raises:
        ValueError: there are no differences.
    """
    means = _resampled_means(differences, samples, np.random.default_rng(seed))
    return _interval(means, len(differences), confidence)


def unpaired_interval(
    before: np.ndarray, after: np.ndarray, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of mean(after) - mean(before), each set of queries resampled by itself.

    None if one of the sets has fewer than `FEWEST` queries.

    Args:
        before: [P] one value a query.
        after: [Q] one value a query, of other queries.
        samples: how many resamples are drawn.
        seed: seeds the draws.
        confidence: the share of intervals that hold the true difference.

    Raises:
        ValueError: there are no values.
    """
    rng = np.random.default_rng(seed)
    means = [_resampled_means(values, samples, rng) for values in (before, after)]
    return _interval(means[1] - means[0], min(len(before), len(after)), confidence)


def randomisation_p(differences: np.ndarray, samples: int, seed: int) -> float:
    """Return the two-sided p-value of the paired randomisation test.

    If the two systems were equal, each query's two values could be swapped, which flips the sign of its difference. p
    is the share of random flips whose mean is at least as far from zero as the observed one. The observed signs count
    as one of the flips, so p is never 0 (Davison and Hinkley 1997, section 4.2).

    Args:
        differences: one paired difference a query ([Q]).
        samples: how many random flips are drawn.
        seed: seeds the draws.

    Raises:
        ValueError: there are no differences.
    """
    _check_not_empty(differences)
    changed = differences[np.abs(differences) > TIE]  # flipping a zero changes nothing
    if not len(changed):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(changed.sum()) - ROUNDING * len(differences)
    extreme = 0
    for part in _parts(samples, len(changed)):
        kept = rng.integers(0, 2, (part.stop - part.start, len(changed)), dtype=np.int8)
        sums = 2 * (kept @ changed) - changed.sum()  # [B, Q] of 0 and 1 → signed sums [B]
        extreme += int((np.abs(sums) >= observed).sum())
    return (1 + extreme) / (1 + samples)


def t_bounds(differences: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval of the mean difference by Student's t; None for fewer than two queries.

    It is quick and needs no seed, so training computes it at each validation.

    Args:
        differences: one paired difference a query ([Q]).
        confidence: the share of intervals that hold the true mean.
    """
    from scipy.stats import t  # takes a second to import

    count = len(differences)
    if count < 2:
        return None
    reach = float(t.ppf((1 + confidence) / 2, count - 1) * differences.std(ddof=1) / count**0.5)
    if reach < TIE:  # the values differ by rounding only
        reach = 0.0
    center = float(differences.mean())
    return center - reach, center + reach


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given (Holm 1979).

    The smallest is multiplied by their number n, the next by n - 1, and so on; each is at least the one before. If
    every corrected p-value below a level counts as significant, the probability of any false positive is at most that
    level, whatever the dependence between the tests.
    """
    corrected = [0.0] * len(p_values)
    reached = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = reached
    return corrected


def wins_ties_losses(differences: np.ndarray) -> tuple[int, int, int]:
    """Count the differences above, at and below zero; a difference within 1e-9 of zero is a tie."""
    wins = int((differences > TIE).sum())
    losses = int((differences < -TIE).sum())
    return wins, len(differences) - wins - losses, losses


def _resampled_means(values: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the means of resamples with replacement ([samples])."""
    _check_not_empty(values)
    means = np.empty(samples)
    for part in _parts(samples, len(values)):
        chosen = rng.integers(0, len(values), (part.stop - part.start, len(values)), dtype=np.int32)
        means[part] = values[chosen].mean(axis=1)  # [B, Q] → [B]
    return means


def _interval(means: np.ndarray, count: int, confidence: float) -> tuple[float, float] | None:
    """Return the expanded percentile interval from the resampled means of `count` queries."""
    if count < FEWEST:
        return None
    from scipy.stats import norm, t  # takes a second to import

    tail = norm.cdf(t.ppf((1 - confidence) / 2, count - 1) * (count / (count - 1)) ** 0.5)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _check_not_empty(differences: np.ndarray) -> None:
    if not len(differences):
        raise ValueError("there are no queries to compare on")


def _parts(samples: int, width: int) -> Iterator[slice]:
    """Yield the samples in parts of at most `CELLS` values, where a sample has `width` values."""
    size = max(1, CELLS // width)
    for start in range(0, samples, size):
        yield slice(start, min(start + size, samples))
