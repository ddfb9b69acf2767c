"""How many queries it takes to tell two systems apart, from how much their difference varies over queries.

The normal approximation of a paired test, which the randomisation test follows closely (Sakai 2016, "Topic set size
design"): with standard deviation s of the paired differences, an effect d is found with the wanted power on about
((z(1 - level / 2) + z(power)) s / d)² queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from embfit.evaluator.significance import TIE

LEVEL = 0.05  # two-sided
POWER = 0.8  # chance of finding an effect that is there


def deviation_of(differences: Sequence[float] | np.ndarray) -> float | None:
    """Return the standard deviation of paired differences; None where it is not known.

    One query does not tell it, and neither do queries that all differ by the same: as many more may not.
    """
    if len(differences) < 2:
        return None
    return float(np.std(differences, ddof=1)) if np.ptp(differences) > TIE else None


def queries_needed(deviation: float | None, effect: float) -> int | None:
    """Return how many queries, two at least, would show an effect of this size; None where that is not known.

    Args:
        deviation: standard deviation of the paired differences, if it is known.
        effect: mean difference to be shown; none shows one of 0.
    """
    if effect == 0 or not deviation:
        return None
    return max(2, math.ceil((_spread() * deviation / effect) ** 2 - 1e-9))


def detectable(deviation: float | None, queries: int) -> float | None:
    """Return the least mean difference that so many queries would show; None where the deviation is not known."""
    return None if not deviation else _spread() * deviation / math.sqrt(queries)


def _spread() -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
