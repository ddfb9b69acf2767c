"""Statistical power: how many queries it takes to see a gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embfit.evaluator.power import detectable, deviation_of, queries_needed
from embfit.records import Evaluation

GAINS = (0.01, 0.02, 0.03, 0.05)


def statistical_power(base: Evaluation, others: Sequence[Evaluation], hoped: float) -> dict[str, Any]:
    """Say whether the split can show the gain hoped for.

    How a tuned model's values will differ from the base's is not known yet. The estimate is the median standard
    deviation of the differences between the other systems and the base, without systems that do not differ. If there
    are no other systems, it is the standard deviation of the base's own values.

    Args:
        base: the configured model's evaluation.
        others: the evaluations of the other systems.
        hoped: the gain hoped for.

    Returns:
        `metric`, `queries`, `deviations` by system, the `deviation` used, the `hoped` gain, the `needed` queries, the
        `smallest` gain that the given queries show, and a `table` of needed queries by gain. A value is None if it is
        not known, as with one query or if nothing differs.
    """
    metric = next(iter(base.metrics))
    before = base.per_query[metric]
    deviations = {
        other.system: deviation_of([other.per_query[metric][query] - before[query] for query in before])
        for other in others
    }
    known = [deviation for deviation in deviations.values() if deviation is not None]
    deviation = float(np.median(known)) if known else None
    if not others:
        deviation = deviation_of(list(before.values()))
    return {
        "metric": metric,
        "queries": len(before),
        "deviations": deviations,
        "deviation": deviation,
        "hoped": hoped,
        "needed": queries_needed(deviation, hoped),
        "smallest": detectable(deviation, len(before)),
        "table": {str(gain): queries_needed(deviation, gain) for gain in GAINS},
    }
