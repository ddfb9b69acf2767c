"""One system against another on the same queries, for every metric and subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from embfit.evaluator.significance import bootstrap_interval, holm, randomisation_p, wins_ties_losses
from embfit.records import Comparison, Evaluation

ALL = "all"


def compare(a: Evaluation, b: Evaluation, samples: int, seed: int) -> list[Comparison]:
    """Return the paired comparisons of `b` against `a`: all queries first, then each subset; metrics as in `a`.

    A positive difference means that `b` is better. The resamples are the same for every metric of a subset. If one of
    the systems found nothing for any query, it cannot work on this data, and there are no comparisons.

    Args:
        a: the system compared with.
        b: the system of interest.
        samples: how many resamples the bootstrap draws, and how many random flips the randomisation test.
        seed: seeds both.

    Raises:
        ValueError: they were not evaluated on the same queries and metrics.
    """
    if (a.split, *a.metrics) != (b.split, *b.metrics):
        raise ValueError(f"{a.system} ({a.split}: {[*a.metrics]}) and {b.system} ({b.split}: {[*b.metrics]}) differ")
    everything = list(next(iter(a.per_query.values())))
    if set(everything) != set(next(iter(b.per_query.values()))):
        raise ValueError(f"{a.system} and {b.system} were evaluated on different queries")
    if not (a.found_any and b.found_any):
        return []
    return [
        _compare(a, b, metric, subset, queries, samples, seed)
        for subset, queries in {ALL: everything, **a.subsets}.items()
        for metric in a.metrics
    ]


def compare_all(evaluations: Sequence[Evaluation], samples: int, seed: int) -> list[Comparison]:
    """Return the comparisons of each further system against the first one, with p-values corrected for their number.

    The more systems are compared, the likelier one of them looks different by chance. So if there are several, `p_holm`
    is p corrected by Holm's method over the systems, for each metric and subset separately.

    Raises:
        ValueError: they were not evaluated on the same queries and metrics.
    """
    first, *others = evaluations
    compared = [found for other in others if (found := compare(first, other, samples, seed))]
    if len(compared) < 2:
        return [found for one in compared for found in one]
    families = [  # transposed: one family per metric and subset
        [replace(found, p_holm=p) for found, p in zip(family, holm([found.p for found in family]), strict=True)]
        for family in zip(*compared, strict=True)
    ]
    return [found for one in zip(*families, strict=True) for found in one]


def most_changed(a: Evaluation, b: Evaluation, metric: str, count: int) -> dict[str, list[dict[str, str | float]]]:
    """Return the queries on which `b` gained and lost most against `a`: `improved` and `worsened`, largest first.

    Args:
        a: the system compared with.
        b: the system of interest.
        metric: the metric that is compared.
        count: the most queries in each list; queries that tie keep the order of the split.
    """
    before, after = a.per_query[metric], b.per_query[metric]
    rows: list[dict[str, str | float]] = [
        {"query": query, "before": before[query], "after": after[query], "difference": after[query] - before[query]}
        for query in before
    ]
    return {
        "improved": [row for row in sorted(rows, key=lambda row: -_difference(row))[:count] if _difference(row) > 0],
        "worsened": [row for row in sorted(rows, key=_difference)[:count] if _difference(row) < 0],
    }


def _difference(row: Mapping[str, str | float]) -> float:
    return float(row["difference"])


def _compare(
    a: Evaluation, b: Evaluation, metric: str, subset: str, queries: Sequence[str], samples: int, seed: int
) -> Comparison:
    before, after = a.per_query[metric], b.per_query[metric]
    differences = np.array([after[query] - before[query] for query in queries])  # [Q]
    wins, ties, losses = wins_ties_losses(differences)
    return Comparison(
        a=a.system,
        b=b.system,
        metric=metric,
        subset=subset,
        queries=len(queries),
        difference=float(differences.mean()),
        ci95=bootstrap_interval(differences, samples, seed),
        p=randomisation_p(differences, samples, seed),
        wins=wins,
        ties=ties,
        losses=losses,
    )
