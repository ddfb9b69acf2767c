"""How many queries a comparison of two systems needs, given how much their difference varies over queries.

This is the normal approximation of a paired test, which the randomisation test follows closely (Sakai 2016, "Topic set
size design"): with standard deviation s of the paired differences, detecting an effect d with the wanted power takes
about ((z(1 - level / 2) + z(power)) s / d)² queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from embfit.evaluator.significance import TIE

LEVEL = 0.05  # two-sided
POWER = 0.8  # probability of detecting an effect that exists


def deviation_of(differences: Sequence[float] | np.ndarray) -> float | None:
    """Return the standard deviation of paired differences; None if they do not allow an estimate.

    A single query does not, and neither do equal differences, since further queries may differ by other amounts.
    """
    if len(differences) < 2:
        return None
    return float(np.std(differences, ddof=1)) if np.ptp(differences) > TIE else None


def queries_needed(deviation: float | None, effect: float) -> int | None:
    """Return how many queries, at least two, detect an effect of this size; None if that is not known.

    Args:
        deviation: standard deviation of the paired differences, if it is known.
        effect: mean difference to detect; no number of queries detects an effect of 0.
    """
    if effect == 0 or not deviation:
        return None
    return max(2, math.ceil((_spread() * deviation / effect) ** 2 - 1e-9))


def detectable(deviation: float | None, queries: int) -> float | None:
    """Return the least mean difference that this many queries detect; None if the deviation is not known."""
    return None if not deviation else _spread() * deviation / math.sqrt(queries)


def _spread() -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
