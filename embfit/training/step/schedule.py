"""The learning-rate schedule, as a share of the peak."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["linear", "cosine", "constant"]


def learning_rate_share(step: int, steps: int, warmup: float, schedule: Schedule) -> float:
    """Return the share of the peak rate used in a step: a linear rise, then the schedule's fall towards 0.

    Args:
        step: the step's number, from 0.
        steps: how many steps the whole run has.
        warmup: the share of the steps in which the rate rises.
        schedule: whether the rate falls linearly, as a cosine, or not at all.
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)  # never 0: a step at rate 0 is wasted
    if schedule == "constant":
        return 1.0
    left = max(0.0, 1 - (step - rising) / max(steps - rising, 1))  # 1 at the peak, 0 one step after the last
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
