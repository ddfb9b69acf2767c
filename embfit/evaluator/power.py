"""How many queries it takes to tell two systems apart, from how much their difference varies over queries.

The normal approximation of a paired test, which the randomisation test follows closely (Sakai 2016, "Topic set size
design"): with standard deviation s of the paired differences, an effect d is found with the wanted power on about
((z(1 - level / 2) + z(power)) s / d)² queries.
"""

from __future__ import annotations

import math
from statistics import NormalDist

LEVEL = 0.05  # two-sided
POWER = 0.8  # chance of finding an effect that is there


def queries_needed(deviation: float, effect: float) -> int | None:
    """Return how many queries, two at least, would show an effect of this size; None where none could (an effect of 0).

    Args:
        deviation: standard deviation of the paired differences.
        effect: mean difference to be shown.
    """
    if effect == 0:
        return None
    return max(2, math.ceil((_spread() * deviation / effect) ** 2 - 1e-9))


def detectable(deviation: float, queries: int) -> float:
    """Return the least mean difference that so many queries would show."""
    return _spread() * deviation / math.sqrt(queries)


def _spread() -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
