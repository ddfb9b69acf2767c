"""The points that a sweep chooses among, each with its mean over seeds, and those that no other point beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embfit.sweep.job import Result
from embfit.sweep.objective import Objective
from embfit.sweep.space import SEED


@dataclass(frozen=True)
class SweepCandidate:
    """A point with the jobs that differ in the seed only.

    Args:
        point: the varied keys with their values, without the seed.
        results: the results of the point's finished jobs, one for each seed.
        values: the mean of each objective over these jobs.
    """

    point: Mapping[str, str]
    results: tuple[Result, ...]
    values: tuple[float, ...]


def candidates(results: Sequence[Result]) -> list[SweepCandidate]:
    """Return the points with a finished job; if several jobs have the same point and seed, the first one counts."""
    groups: dict[tuple[tuple[str, str], ...], dict[str | None, Result]] = {}
    for result in results:
        if result.found is not None:
            point = tuple(without_seed(result.job.point).items())
            groups.setdefault(point, {}).setdefault(result.job.point.get(SEED), result)
    return [_candidate(dict(point), list(by_seed.values())) for point, by_seed in groups.items()]


def comparable(found: Sequence[SweepCandidate]) -> list[SweepCandidate]:
    """Return the points with the most seeds; a point with fewer could win or lose by chance."""
    most = max((len(one.results) for one in found), default=0)
    return [one for one in found if len(one.results) == most]


def front(found: Sequence[SweepCandidate], objectives: Sequence[Objective]) -> list[SweepCandidate]:
    """Return the Pareto front, ordered by the first objective: the points that no other point beats.

    A point beats another if it is better in one objective and not worse in any other. With one objective, the front is
    the best point and those that equal it.
    """
    kept = [one for one in found if not any(_beats(other, one, objectives) for other in found)]
    return sorted(kept, key=lambda one: _cost(one, objectives))


def without_seed(point: Mapping[str, str]) -> dict[str, str]:
    """Return a point without its seed."""
    return {key: value for key, value in point.items() if key != SEED}


def _candidate(point: Mapping[str, str], results: Sequence[Result]) -> SweepCandidate:
    columns = zip(*(result.found or () for result in results), strict=True)
    return SweepCandidate(point, tuple(results), tuple(sum(column) / len(results) for column in columns))


def _beats(one: SweepCandidate, other: SweepCandidate, objectives: Sequence[Objective]) -> bool:
    pairs = list(zip(_cost(one, objectives), _cost(other, objectives), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _cost(one: SweepCandidate, objectives: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(objective.sign * value for objective, value in zip(objectives, one.values, strict=True))
