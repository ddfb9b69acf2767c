"""Every combination of the values named."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from embfit.errors import ConfigError
from embfit.sweep.job import Job
from embfit.sweep.objective import Direction
from embfit.sweep.space import Space


@dataclass(frozen=True)
class Grid:
    """Runs every combination, the last key varying fastest.

    Args:
        objective: by which the summary ranks the jobs: `dev.METRIC`, or the path of a number in `report.json`.
        direction: whether more or less of it is better.
    """

    objective: str = "dev.ndcg@10"
    direction: Direction = "maximize"

    def proposals(self, space: Space, folder: Path) -> Generator[list[Job], Mapping[int, float | None], None]:
        """Yield all jobs at once; what comes back is not looked at.

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
        yield [Job(number, dict(zip(keys, point, strict=True))) for number, point in enumerate(points)]
