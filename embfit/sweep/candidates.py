"""What a sweep chooses among: points, each with the mean over its seeds, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embfit.sweep.job import Result
from embfit.sweep.objective import Aim

SEED = "seed"


@dataclass(frozen=True)
class Candidate:
    """A point with the jobs that differ in nothing but the seed.

    Args:
        point: the varied keys with their values, without the seed.
        results: its finished jobs.
        values: of each objective, the mean over the jobs.
    """

    point: Mapping[str, str]
    results: tuple[Result, ...]
    values: tuple[float, ...]


def candidates(results: Sequence[Result]) -> list[Candidate]:
    """Return the points that can be compared: those with the most finished seeds, so that none wins by a lucky one."""
    groups: dict[tuple[tuple[str, str], ...], list[Result]] = {}
    for result in results:
        if result.found is not None:
            groups.setdefault(tuple(without_seed(result.job.point).items()), []).append(result)
    most = max(map(len, groups.values()), default=0)
    return [_candidate(dict(point), group) for point, group in groups.items() if len(group) == most]


def front(found: Sequence[Candidate], aims: Sequence[Aim]) -> list[Candidate]:
    """Return the points that no other beats in one objective without losing in another, best in the first one first.

    With one objective that is the best, and those that equal it.
    """
    kept = [one for one in found if not any(_beats(other, one, aims) for other in found)]
    return sorted(kept, key=lambda one: _cost(one, aims))


def without_seed(point: Mapping[str, str]) -> dict[str, str]:
    """Return a point without its seed."""
    return {key: value for key, value in point.items() if key != SEED}


def _candidate(point: Mapping[str, str], results: Sequence[Result]) -> Candidate:
    columns = zip(*(result.found or () for result in results), strict=True)
    return Candidate(point, tuple(results), tuple(sum(column) / len(results) for column in columns))


def _beats(one: Candidate, other: Candidate, aims: Sequence[Aim]) -> bool:
    pairs = list(zip(_cost(one, aims), _cost(other, aims), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _cost(one: Candidate, aims: Sequence[Aim]) -> tuple[float, ...]:
    return tuple(aim.sign * value for aim, value in zip(aims, one.values, strict=True))
