from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from embfit.evaluator import significance
from embfit.evaluator.significance import (
    bootstrap_interval,
    holm,
    randomisation_p,
    t_bounds,
    unpaired_interval,
    wins_ties_losses,
)


def found(interval: tuple[float, float] | None) -> tuple[float, float]:
    assert interval is not None
    return interval


def every_flip(differences: list[float]) -> float:
    """The exact p-value: the share of all sign flips at least as far from zero as what was observed."""
    observed = abs(sum(differences))
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(abs(total) >= observed - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize(
    ("differences", "exact"),
    [
        ([1.0, 1.0, 1.0, 1.0], 2 / 16),  # all the same sign, or all the other
        ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # |sum| is 2 or 4
        ([1.0, 1.0, 0.0, 0.0], 2 / 4),  # zeros have no say
        ([3.0, 1.0, -1.0], 6 / 8),  # flips sum to ±5, ±3, ±3 and ±1
        ([0.1, 0.2, 0.3], 2 / 8),
        ([0.1, -0.2, 0.3, 0.4, 0.05, -0.1], None),
    ],
)
def test_randomisation_agrees_with_every_flip_enumerated(differences: list[float], exact: float | None) -> None:
    exact = every_flip(differences) if exact is None else exact
    assert every_flip(differences) == pytest.approx(exact)
    spread = (exact * (1 - exact) / 100_000) ** 0.5
    assert randomisation_p(np.array(differences), 100_000, seed=1) == pytest.approx(exact, abs=4 * spread + 1e-5)


def test_p_is_never_zero_and_counts_the_observed_flips() -> None:
    assert randomisation_p(np.ones(100), samples=999, seed=0) == 1 / 1000
    assert randomisation_p(np.zeros(100), samples=999, seed=0) == 1.0
    assert randomisation_p(np.array([0.5]), samples=999, seed=0) == 1.0


def test_p_ignores_the_sign_and_the_scale_of_the_difference() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 50)
    p = randomisation_p(differences, 2_000, seed=3)
    assert p == randomisation_p(-differences, 2_000, seed=3) == randomisation_p(differences / 8, 2_000, seed=3)


def test_p_is_uniform_when_the_systems_are_the_same() -> None:
    rng = np.random.default_rng(0)
    ps = np.array([randomisation_p(rng.normal(0, 1, 40), 500, seed=trial) for trial in range(1_000)])
    levels = np.linspace(0.05, 0.95, 19)
    reached = (ps[:, None] <= levels).mean(axis=0)
    assert np.abs(reached - levels).max() < 1.63 / 1_000**0.5  # Kolmogorov-Smirnov at 1 %


def test_p_finds_a_difference_that_is_there() -> None:
    assert randomisation_p(np.random.default_rng(0).normal(0.5, 1, 100), 10_000, seed=0) < 0.001


def test_the_interval_agrees_with_every_resample_enumerated() -> None:
    # Of 20 values five are 1, so resampled sums are binomial (20, 1/4); scipy tells which one a percentile falls on.
    differences = np.repeat([0.0, 1.0], [15, 5])
    for confidence, tail in ((0.95, 0.01588), (0.80, 0.08656), (0.20, 0.39605)):  # Φ(√(20/19) t), t of 19 degrees
        low, high = found(bootstrap_interval(differences, 40_000, seed=0, confidence=confidence))
        assert (20 * low, 20 * high) == pytest.approx((binom.ppf(tail, 20, 0.25), binom.ppf(1 - tail, 20, 0.25)))


def test_few_queries_have_no_interval() -> None:
    """Of 0.3, 0.3 and 0.2 percentiles would say 0.20 to 0.30, above zero, where p is 1/4."""
    assert bootstrap_interval(np.array([0.3, 0.3, 0.2]), 1_000, seed=0) is None
    assert bootstrap_interval(np.full(19, 0.1), 1_000, seed=0) is None
    assert bootstrap_interval(np.full(20, 0.1), 1_000, seed=0) == pytest.approx((0.1, 0.1))
    assert unpaired_interval(np.full(19, 0.1), np.full(500, 0.1), 1_000, seed=0) is None
    assert unpaired_interval(np.full(500, 0.1), np.full(20, 0.2), 1_000, seed=0) == pytest.approx((0.1, 0.1))


def test_the_interval_of_many_queries_is_the_normal_one() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, 2_000)
    low, high = found(bootstrap_interval(differences, 10_000, seed=0))
    half = 1.96 * differences.std() / 2_000**0.5
    assert (low, high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=0.03 * 2 * half)


@pytest.mark.parametrize("queries", [20, 30, 100])
def test_the_interval_covers_the_true_mean_95_times_in_100(queries: int) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(2_000):
        low, high = found(bootstrap_interval(rng.normal(0.3, 1, queries), 1_000, seed=trial))
        covered += low <= 0.3 <= high
    assert covered / 2_000 == pytest.approx(0.95, abs=0.015)  # three standard errors of 2,000 trials


def test_the_interval_of_no_change_is_a_point() -> None:
    assert bootstrap_interval(np.zeros(20), 100, seed=0) == (0.0, 0.0)


def test_results_depend_on_the_seed_and_not_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 30)
    whole = bootstrap_interval(differences, 1_000, seed=5), randomisation_p(differences, 1_000, seed=5)
    assert bootstrap_interval(differences, 1_000, seed=6) != whole[0]
    monkeypatch.setattr(significance, "CELLS", 30 * 64)
    assert (bootstrap_interval(differences, 1_000, seed=5), randomisation_p(differences, 1_000, seed=5)) == whole


def test_wins_ties_and_losses() -> None:
    assert wins_ties_losses(np.array([0.1, -0.1, 0.0, 1e-12, -1e-12, 0.2])) == (2, 3, 1)


def test_no_queries_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no queries"):
        bootstrap_interval(np.array([]), 10, seed=0)
    with pytest.raises(ValueError, match="no queries"):
        randomisation_p(np.array([]), 10, seed=0)


def test_holm_corrects_by_how_many_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_of_values_with_many_ties_is_never_too_small() -> None:
    # Reciprocal ranks of two systems alike: most queries tie, the others move between few values.
    rng = np.random.default_rng(2)
    values = np.array([1.0, 0.5, 1 / 3, 0.0])
    draws = rng.choice(values, (800, 2, 60), p=[0.7, 0.1, 0.1, 0.1])
    ps = np.array([randomisation_p(after - before, 400, seed=trial) for trial, (before, after) in enumerate(draws)])
    for level in (0.01, 0.05, 0.1, 0.5):
        assert (ps <= level).mean() < level + 3 * (level * (1 - level) / 800) ** 0.5
    assert (ps <= 0.1).mean() > 0.05


def test_holm_keeps_false_alarms_of_a_whole_family_below_the_level() -> None:
    # Five systems that all equal the first: how often is any of them called different?
    rng = np.random.default_rng(3)
    alarms = raw = 0
    for trial in range(400):
        first = rng.normal(0, 1, 40)
        ps = [randomisation_p(rng.normal(0, 1, 40) - first, 400, seed=trial) for _ in range(5)]
        alarms += min(holm(ps)) < 0.05
        raw += min(ps) < 0.05
    assert alarms / 400 < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert raw > 2 * alarms


def test_the_unpaired_interval_covers_the_true_difference_95_times_in_100() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(1_000):
        before, after = rng.normal(0.5, 0.3, 120), rng.normal(0.4, 0.4, 50)  # other sizes, other spreads
        low, high = found(unpaired_interval(before, after, 400, seed=trial))
        covered += low <= -0.1 <= high
    assert covered / 1_000 == pytest.approx(0.95, abs=0.025)


def test_the_unpaired_interval_of_many_queries_is_the_normal_one() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.normal(0.5, 0.3, 2_000), rng.normal(0.4, 0.4, 1_000)
    half = 1.96 * (before.var() / 2_000 + after.var() / 1_000) ** 0.5
    middle = after.mean() - before.mean()
    assert unpaired_interval(before, after, 5_000, seed=0) == pytest.approx(
        (middle - half, middle + half), abs=0.06 * half
    )
    with pytest.raises(ValueError, match="no queries"):
        unpaired_interval(before, np.array([]), 10, seed=0)


def test_t_bounds_are_those_of_the_paired_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1.0, 50)
    for confidence in (0.9, 0.95):
        expected = ttest_1samp(differences, 0.0).confidence_interval(confidence)
        assert t_bounds(differences, confidence) == pytest.approx((expected.low, expected.high))
    assert t_bounds(np.array([0.3])) is None
    assert t_bounds(np.full(9, 0.1)) == pytest.approx((0.1, 0.1))
    assert t_bounds(np.full(9, 0.1) - np.full(9, 0.1)) == (0.0, 0.0)
