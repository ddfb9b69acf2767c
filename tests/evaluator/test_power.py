import numpy as np
import pytest

from embfit.evaluator.power import detectable, deviation_of, queries_needed
from embfit.evaluator.significance import randomisation_p

DEVIATION = float(np.std([0.3, -0.3] * 50, ddof=1))  # 0.3015 over 100 queries


def test_queries_needed_is_the_textbooks_number() -> None:
    # ((1.959964 + 0.841621) · 0.301511 / 0.1)² = 71.35
    assert queries_needed(DEVIATION, 0.1) == 72
    assert queries_needed(DEVIATION, -0.05) == 286  # four times as many for half the effect
    assert queries_needed(0.3, 0.03) == 785  # a deviation of ten effects: (1.959964 + 0.841621)² · 100 = 784.9
    assert queries_needed(DEVIATION, 0.0) is None
    assert queries_needed(1e-6, 0.1) == 2


def test_one_query_or_equal_differences_leave_it_unknown() -> None:
    assert deviation_of([0.5]) is deviation_of([0.1] * 30) is deviation_of([0.1, 0.1 + 1e-12]) is None
    assert deviation_of([0.3, -0.3]) == pytest.approx(0.3 * 2**0.5)
    assert queries_needed(None, 0.1) is queries_needed(0.0, 0.1) is None
    assert detectable(None, 30) is detectable(0.0, 30) is None


def test_what_can_be_detected_is_the_same_sum_backwards() -> None:
    least = detectable(DEVIATION, 100)
    assert least is not None
    assert least == pytest.approx(2.801585 * 0.301511 / 10, rel=1e-5)
    assert queries_needed(DEVIATION, least) == 100


def test_that_many_queries_find_it_four_times_in_five() -> None:
    random = np.random.default_rng(0)
    population = random.choice([-0.5, 0.0, 0.0, 0.5], 4000) + 0.1
    count = queries_needed(float(np.std(population, ddof=1)), 0.1)
    assert count is not None
    found = [randomisation_p(random.choice(population, count), 400, seed) < 0.05 for seed in range(300)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)
