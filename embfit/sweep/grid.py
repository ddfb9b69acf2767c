"""Every combination of the values named."""

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
        objective: by which the summary ranks the jobs: `dev.METRIC`, `minutes`, `config.KEY`, or the path of a number
            in `report.json`; or several, of which the first ranks and all make the front.
        direction: whether more or less of it is better; one for each objective.
    """

    objective: str | Sequence[str] = "dev.ndcg@10"
    direction: Direction | Sequence[Direction] = "maximize"

    def __post_init__(self) -> None:
        pair_objectives(self.objective, self.direction)  # refuses unequal numbers before anything is run

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is looked for."""
        return pair_objectives(self.objective, self.direction)

    @property
    def requires_objectives(self) -> bool:
        """The objective that was asked for must be there; without the default one, a grid is a table still."""
        return self.objective != Grid.objective

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """No job ends early: every combination was asked for."""
        return None

    def foreseen(self, space: Space) -> list[SweepJob]:
        """Return all jobs.

        Raises:
            ConfigError: a key is given an interval, which has no end of values.
        """
        for axis in space.axes:
            if not axis.values:
                raise ConfigError(
                    f"{axis.key} is given an interval, of which a grid has no end of values; name some "
                    f"({axis.key}=a,b), or search it with sweep=optuna"
                )
        keys = [axis.key for axis in space.axes]
        points = itertools.product(*(axis.values for axis in space.axes))
        return [SweepJob(number, dict(zip(keys, point, strict=True))) for number, point in enumerate(points)]

    def proposals(self, space: Space, folder: Path) -> Generator[list[SweepJob], Mapping[int, Result], None]:
        """Yield all jobs at once; what comes back is not looked at."""
        yield self.foreseen(space)
