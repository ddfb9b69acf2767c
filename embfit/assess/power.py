"""How many queries it takes to see a gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embfit.evaluator.power import detectable, queries_needed
from embfit.records import Evaluation

GAINS = (0.01, 0.02, 0.03, 0.05)


def foresee(base: Evaluation, others: Sequence[Evaluation], hoped: float) -> dict[str, Any]:
    """Say whether the split can show the gain hoped for.

    What a tuned model's differences will be is not known yet; those of the systems measured here, against the base, are
    taken for it: the median of their standard deviations. Without another system it is the base's own deviation.

    Returns:
        `metric`, `queries`, `deviations` by system, `deviation` used, `hoped` gain, `needed` queries, `smallest` gain
        that the queries at hand show, and `table`: queries needed by gain.
    """
    metric = next(iter(base.metrics))
    before = base.per_query[metric]
    deviations = {
        other.system: float(np.std([other.per_query[metric][query] - before[query] for query in before], ddof=1))
        for other in others
        if len(before) > 1
    }
    own = float(np.std(list(before.values()), ddof=1)) if len(before) > 1 else 0.0
    deviation = float(np.median(list(deviations.values()))) if deviations else own
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
