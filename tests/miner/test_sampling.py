"""Sampling: quotas, equal chances, seeds."""

from __future__ import annotations

import numpy as np
import pytest

from embfit.miner.sampling import Sampling, distinct, sample, top, uniform, weighted


def test_top_takes_the_first_that_passed() -> None:
    passed = np.array([[False, True, True, True], [True, False, False, True], [False] * 4])
    assert top(passed, np.array([2, 1, 3])).tolist() == [
        [False, True, True, False],
        [True, False, False, False],
        [False] * 4,
    ]


def test_uniform_takes_as_many_as_it_can_of_what_passed() -> None:
    passed = np.random.default_rng(1).random((500, 12)) < 0.4
    quotas = np.arange(500) % 6
    taken = uniform(passed, quotas, np.random.default_rng(0))
    assert not (taken & ~passed).any()
    np.testing.assert_array_equal(taken.sum(axis=1), np.minimum(passed.sum(axis=1), quotas))


def test_uniform_gives_equal_chances() -> None:
    passed = np.tile([True, False, True, True, True], (20_000, 1))
    taken = uniform(passed, np.full(20_000, 3), np.random.default_rng(0))
    np.testing.assert_allclose(taken.mean(axis=0), [0.75, 0, 0.75, 0.75, 0.75], atol=0.01)  # 3 of 4; 3 deviations


def test_weighted_draws_by_standardised_score() -> None:
    """Scores of 9 and 5 lie one deviation above and below their mean: chances e and 1/e, 0.881 to 0.119."""
    passed = np.tile([True, False, True, True], (20_000, 1))
    passed[:, 3] = False
    scores = np.tile(np.array([9, 100, 5, 7], np.float32), (20_000, 1))
    taken = weighted(passed, np.ones(20_000, int), np.random.default_rng(0), scores)
    assert not (taken & ~passed).any()
    np.testing.assert_allclose(taken.mean(axis=0), [0.881, 0, 0.119, 0], atol=0.01)
    equal = weighted(passed, np.ones(20_000, int), np.random.default_rng(0), np.ones(passed.shape, np.float32))
    np.testing.assert_allclose(equal.mean(axis=0), [0.5, 0, 0.5, 0], atol=0.01)
    all_there_are = weighted(passed, np.full(20_000, 3), np.random.default_rng(0), scores)
    np.testing.assert_array_equal(all_there_are, passed)


@pytest.mark.parametrize("sampling", ["top", "uniform", "weighted"])
def test_the_same_seed_gives_the_same_sample(sampling: Sampling) -> None:
    passed = np.ones((50, 20), bool)
    quotas = np.full(50, 5)
    scores = np.random.default_rng(0).random(passed.shape)

    def draw(seed: int) -> list[list[bool]]:
        taken: list[list[bool]] = sample(passed, quotas, sampling, np.random.default_rng(seed), scores).tolist()
        return taken

    assert draw(1) == draw(1)
    assert (draw(1) == draw(2)) == (sampling == "top")


def test_distinct_numbers_are_distinct_and_equally_likely() -> None:
    drawn = distinct(30_000, 6, 4, np.random.default_rng(0))
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=6) / 30_000, 4 / 6, atol=0.01)
    sets, counts = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    assert len(sets) == 15  # 6 over 4
    np.testing.assert_allclose(counts / 30_000, 1 / 15, atol=0.005)
    assert np.sort(distinct(3, 5, 5, np.random.default_rng(0)), axis=1).tolist() == [[0, 1, 2, 3, 4]] * 3
