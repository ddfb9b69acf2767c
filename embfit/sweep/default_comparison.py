"""The best job of a sweep compared with the default: is it better, or did it win by chance?

The best job was chosen on dev queries. It is compared on the report's split, which had no part in the choice. The
values of each query are first averaged over the seeds, because one query under three seeds is not three queries. Then
the paired tests of `embfit.evaluator.significance` compare the two over the queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embfit.run.record import read_record
from embfit.sweep.candidates import SweepCandidate, without_seed
from embfit.sweep.job import Result
from embfit.sweep.space import SEED

SAMPLES = 10_000  # for the bootstrap and the randomisation test


@dataclass(frozen=True)
class DefaultComparison:
    """The difference between the best point of a sweep and the default.

    Args:
        metric: the metric that is compared, measured for the report's main system.
        split: the split whose queries are compared.
        queries: the number of queries.
        difference: the best point's mean minus the default's.
        ci95: the 95 % interval of the difference; None if there are too few queries for one.
        p: the p-value of the paired randomisation test.
        by_seed: the difference of each pair of runs with the same seed.
    """

    metric: str
    split: str
    queries: int
    difference: float
    ci95: tuple[float, float] | None
    p: float
    by_seed: Sequence[float]

    @property
    def sentence(self) -> str:
        """The comparison in one line."""
        from embfit.report.formatting import certainty

        seeds = "one seed"
        if len(self.by_seed) > 1:
            seeds = f"mean of {len(self.by_seed)} seeds, {min(self.by_seed):+.4f} to {max(self.by_seed):+.4f} by seed"
        return (
            f"best − default: {self.split} {self.metric} {self.difference:+.4f} ({certainty(self.ci95)}, "
            f"p = {self.p:.4f}, {self.queries} queries, {seeds})"
        )


def compare_with_default(
    best: SweepCandidate, found: Sequence[SweepCandidate], default: Mapping[str, str], folder: Path, metric: str
) -> DefaultComparison | str:
    """Compare the best point of a sweep with the default, or return in one line why they cannot be compared.

    Args:
        best: the best point.
        found: all points with a finished job.
        default: key → the value that a run without the sweep would have, for the varied keys that contain it.
        folder: the sweep's folder.
        metric: the metric to compare; if the reports do not have it by query, their first metric is compared.
    """
    point = without_seed(default)
    other = next((one for one in found if one.point == point), None)
    if other is None:
        return "no finished job has the default value of every key, so the best is not compared with the default"
    if other.point == best.point:
        return "the best is the default"
    pairs = [(_judged(folder, a, metric), _judged(folder, b, metric)) for a, b in _paired(other, best)]
    if not pairs or any(a is None or b is None or a.values.keys() != b.values.keys() for a, b in pairs):
        return "the reports have no values of the same queries, so the best is not compared with the default"
    return _verdict([(a, b) for a, b in pairs if a is not None and b is not None])


@dataclass(frozen=True)
class _Judged:
    """A run's values of one metric by query."""

    metric: str
    split: str
    values: Mapping[str, float]


def _paired(one: SweepCandidate, other: SweepCandidate) -> list[tuple[Result, Result]]:
    """Return the pairs of runs, one of each point, that have the same seed."""
    by_seed = {result.job.point.get(SEED): result for result in other.results}
    return [(result, by_seed[seed]) for result in one.results if (seed := result.job.point.get(SEED)) in by_seed]


def _judged(folder: Path, result: Result, metric: str) -> _Judged | None:
    run = read_record(folder / str(result.job.number))
    if run.headline is None:
        return None
    first, values = run.headline
    system: Mapping[str, Any] = run.report["systems"]["tuned" if "tuned" in values else next(iter(values))]
    by_query = system.get("per_query", {})
    name = metric if metric in by_query else first
    return _Judged(name, str(system.get("split", "")), by_query[name]) if by_query.get(name) else None


def _verdict(pairs: Sequence[tuple[_Judged, _Judged]]) -> DefaultComparison:
    import numpy as np

    from embfit.evaluator.significance import bootstrap_interval, randomisation_p

    first = pairs[0][0]
    queries = list(first.values)
    differences = np.array([[b.values[query] - a.values[query] for query in queries] for a, b in pairs])  # [S, Q]
    by_query = differences.mean(axis=0)  # [Q]
    return DefaultComparison(
        metric=first.metric,
        split=first.split,
        queries=len(queries),
        difference=float(by_query.mean()),
        ci95=bootstrap_interval(by_query, SAMPLES, seed=0),
        p=randomisation_p(by_query, SAMPLES, seed=0),
        by_seed=[float(value) for value in differences.mean(axis=1)],
    )
