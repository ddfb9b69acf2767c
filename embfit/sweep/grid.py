"""A sweep over every combination of the given values."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embfit.errors import ConfigError
from embfit.sweep.job import Result, SweepJob
from embfit.sweep.objective import Direction, Objective, pair_objectives
from embfit.sweep.space import Space


@dataclass(frozen=True)
class Grid:
    """Runs every combination, the last key varying fastest.

    Args:
        objective: the number by which the summary ranks the jobs: `dev.METRIC`, `minutes`, `config.KEY`, or the path of
            a number in `report.json`. With a list, the first entry ranks the jobs and all of them make the front.
        direction: whether a larger or a smaller value is better; a list has one entry for each objective.
    """

    objective: str | Sequence[str] = "dev.ndcg@10"
    direction: Direction | Sequence[Direction] = "maximize"

    def __post_init__(self) -> None:
        pair_objectives(self.objective, self.direction)  # refuses lists of different lengths before anything runs

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The numbers by which jobs are compared, the most important one first."""
        return pair_objectives(self.objective, self.direction)

    @property
    def requires_objectives(self) -> bool:
        """Whether jobs without the objectives are useless: only if the user chose them; the table is useful anyway."""
        return self.objective != Grid.objective

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """Return None: every combination was asked for, so no job ends early."""
        return None

    def known_jobs(self, space: Space) -> list[SweepJob]:
        """Return all jobs.

        Raises:
            ConfigError: a key has an interval, which contains infinitely many values.
        """
        for axis in space.axes:
            if not axis.values:
                raise ConfigError(
                    f"{axis.key} is an interval, and a grid cannot run infinitely many values; give some "
                    f"({axis.key}=a,b), or search the interval with sweep=optuna"
                )
        keys = [axis.key for axis in space.axes]
        points = itertools.product(*(axis.values for axis in space.axes))
        return [SweepJob(number, dict(zip(keys, point, strict=True))) for number, point in enumerate(points)]

    def proposals(self, space: Space, folder: Path) -> Generator[list[SweepJob], Mapping[int, Result], None]:
        """Yield all jobs at once; their results are not used."""
        yield self.known_jobs(space)
