"""Values that a sampler proposes from the results so far, with Optuna.

Optuna is asked for a point and told its value (its ask-and-tell interface), so that jobs are Hydra's as in any other
sweep. The study is an SQLite file in the sweep's folder. A trial is told only when it is done: one that failed or was
interrupted stays open there, and is what a resumed sweep runs first, in the same folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from embfit.errors import ConfigError
from embfit.sweep.job import Job
from embfit.sweep.objective import Direction
from embfit.sweep.space import Axis, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

STUDY = "study.db"


@dataclass(frozen=True)
class Optuna:
    """Searches a space for the best objective.

    Args:
        objective: what is made best: `dev.METRIC`, or the path of a number in `report.json`.
        direction: whether more or less of it is better.
        trials: jobs in all, those of earlier calls of the same sweep counted.
        at_once: jobs proposed before their results are known; for launchers that run several at a time.
        sampler: tpe (Bergstra et al. 2011), or random to compare with.
        startup: trials drawn at random before TPE has something to learn from.
        seed: of the sampler.
    """

    objective: str = "dev.ndcg@10"
    direction: Direction = "maximize"
    trials: Annotated[int, Field(ge=1)] = 20
    at_once: Annotated[int, Field(ge=1)] = 1
    sampler: Literal["tpe", "random"] = "tpe"
    startup: Annotated[int, Field(ge=1)] = 8
    seed: Annotated[int, Field(ge=0)] = 0

    def proposals(self, space: Space, folder: Path) -> Generator[list[Job], Mapping[int, float | None], None]:
        """Yield jobs, first those that an earlier call left open; take their objectives, None for a failed one.

        Raises:
            ConfigError: Optuna is not installed, or nothing is varied.
        """
        if not space.axes:
            raise ConfigError(
                "sweep=optuna has nothing to vary; name values or an interval: training.lr=interval(1e-5,1e-4)"
            )
        study = self._study(folder)
        distributions = {axis.key: _distribution(axis) for axis in space.axes}
        waiting = [trial.number for trial in study.trials if not trial.state.is_finished()]
        while waiting or len(study.trials) < self.trials:
            numbers, waiting = waiting[: self.at_once], waiting[self.at_once :]
            while len(numbers) < self.at_once and not waiting and len(study.trials) < self.trials:
                study.sampler = self._sampler(len(study.trials))
                numbers.append(study.ask(fixed_distributions=distributions).number)
            points = {number: _point(study.trials[number].params) for number in numbers}
            values = yield [Job(number, point) for number, point in points.items()]
            for number, value in values.items():
                if value is not None:
                    study.tell(number, value)

    def _study(self, folder: Path) -> Study:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("sweep=optuna needs Optuna; install it with: pip install 'embfit[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}",
            study_name="sweep",
            direction=self.direction,
            load_if_exists=True,
        )

    def _sampler(self, number: int) -> Any:
        """Return the sampler of one trial: seeded by its number, so that a resumed search draws what it would have."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {number}".encode()).digest()[:4])
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=self.startup, constant_liar=self.at_once > 1)


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.span is None:
        return CategoricalDistribution(axis.values)
    span = axis.span
    if span.whole:
        return IntDistribution(int(span.low), int(span.high), log=span.log, step=int(span.step or 1))
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def _point(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else repr(value) for key, value in parameters.items()}
