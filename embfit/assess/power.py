"""How many queries it takes to see a gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embfit.evaluator.power import detectable, deviation_of, queries_needed
from embfit.records import Evaluation

GAINS = (0.01, 0.02, 0.03, 0.05)


def foresee(base: Evaluation, others: Sequence[Evaluation], hoped: float) -> dict[str, Any]:
    """Say whether the split can show the gain hoped for.

    What a tuned model's differences will be is not known yet; those of the systems measured here, against the base, are
    taken for it: the median of their standard deviations, without those that do not differ. Without another system it
    is the base's own deviation.

    Returns:
        `metric`, `queries`, `deviations` by system, `deviation` used, `hoped` gain, `needed` queries, `smallest` gain
        that the queries at hand show, and `table`: queries needed by gain. None stands for what is not known: of one
        query, or where nothing differs.
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
