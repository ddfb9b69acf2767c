"""How many queries it takes to tell two systems apart, from how much their difference varies over queries.

The normal approximation of a paired test (Sakai 2016, "Topic set size design"): with standard deviation s of the
differences, an effect d is found with the wanted power on about ((z(1 - level / 2) + z(power)) s / d)² queries.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # two-sided
POWER = 0.8  # chance of finding an effect that is there


def queries_needed(differences: np.ndarray, effect: float, level: float = LEVEL, power: float = POWER) -> int | None:
    """Return how many queries would show an effect of this size; None where none could (an effect of 0).

    Args:
        differences: [Q] paired differences observed, for how much they vary; two at least.
        effect: mean difference to be shown.
        level: of the two-sided test.
        power: chance of showing it.
    """
    if effect == 0:
        return None
    needed = (_spread(level, power) * float(np.std(differences, ddof=1)) / effect) ** 2
    return max(2, math.ceil(needed - 1e-9))


def detectable(differences: np.ndarray, queries: int, level: float = LEVEL, power: float = POWER) -> float:
    """Return the least mean difference that so many queries would show."""
    return _spread(level, power) * float(np.std(differences, ddof=1)) / math.sqrt(queries)


def _spread(level: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)
