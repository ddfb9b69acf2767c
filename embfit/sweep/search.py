"""Values that a sampler proposes from the results so far, with Optuna.

Optuna is asked for a point and told its value (its ask-and-tell interface), so jobs are composed by Hydra as in any
other sweep. The study is a journal in the sweep's folder, a file that processes of several machines may append to: on a
shared disk SQLite's locks cannot be relied on (https://www.sqlite.org/faq.html#q5). A trial's value is reported only
when the job has ended. A trial whose job failed or was interrupted stays open, and a resumed sweep runs it first, in
the same folder.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from embfit.errors import ConfigError
from embfit.sweep.job import Result, SweepJob
from embfit.sweep.objective import DEV, Direction, Objective, pair_objectives
from embfit.sweep.space import SEED, Axis, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STUDY = "study.journal"
NAME = "sweep"  # the study's name in its file
OBJECTIVES = "objectives"  # the study's attribute with the objectives that it was begun with
CALLBACK = "embfit.sweep.pruning.Pruning"


@dataclass(frozen=True)
class Optuna:
    """Searches a space for the best objective, or for the best trade between several.

    Args:
        objective: the number to optimise: `dev.METRIC`, `minutes`, `config.KEY`, or the path of a number in
            `report.json`; a list optimises several.
        direction: whether a larger or a smaller value is better; a list has one entry for each objective.
        trials: the number of points to propose in all, including repeated ones and those of earlier calls of the same
            sweep.
        max_parallel: the number of jobs to propose before their results are known, for launchers that run several at a
            time.
        sampler: the sampler: `tpe` (Bergstra et al. 2011), or `random` for comparison.
        startup: the number of random trials before TPE starts to learn from results.
        default_first: whether the first trial is the run that would happen without the sweep, if the space contains it.
        pruner: the rule that ends a training early: `median` ends it when its dev metric is worse than the median of
            the others at the same validation; `auto` does so if the only objective is a dev metric; `none` never does.
        prune_after: the number of validations in a training before it can be pruned.
        prune_startup: the number of jobs that must have ended before any is pruned.
        seed: the seed of the sampler.
    """

    objective: str | Sequence[str] = "dev.ndcg@10"
    direction: Direction | Sequence[Direction] = "maximize"
    trials: Annotated[int, Field(ge=1)] = 20
    max_parallel: Annotated[int, Field(ge=1)] = 1
    sampler: Literal["tpe", "random"] = "tpe"
    startup: Annotated[int, Field(ge=1)] = 8
    default_first: bool = True
    pruner: Literal["auto", "median", "none"] = "auto"
    prune_after: Annotated[int, Field(ge=0)] = 1
    prune_startup: Annotated[int, Field(ge=1)] = 5
    seed: Annotated[int, Field(ge=0)] = 0  # records.Seed without its module, which brings NumPy

    def __post_init__(self) -> None:
        if self.pruner == "median" and not self._dev_alone:
            raise ConfigError(
                "sweep.pruner=median needs a dev metric as the only objective; set sweep.objective=dev.ndcg@10, or "
                "leave sweep.pruner out"
            )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The numbers to optimise, the most important one first."""
        return pair_objectives(self.objective, self.direction)

    @property
    def requires_objectives(self) -> bool:
        """Whether jobs without the objectives are useless; a search learns nothing from them."""
        return True

    @property
    def _dev_alone(self) -> bool:
        return len(self.objectives) == 1 and self.objectives[0].name.startswith(DEV)

    def pruning(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the configuration of the callback that ends trainings early; None if no training is pruned."""
        if self.pruner == "none" or not self._dev_alone:
            return None
        return {
            "_target_": CALLBACK,
            "study": str((folder / STUDY).absolute()),
            "metric": self.objectives[0].name.removeprefix(DEV),
            "after": self.prune_after,
            "startup": self.prune_startup,
        }

    def known_jobs(self, space: Space) -> list[SweepJob]:
        """Return jobs that together contain every value, and both ends of every range and interval.

        Raises:
            ConfigError: nothing is varied, or the seed is varied.
        """
        if not space.axes:
            raise ConfigError(
                "sweep=optuna has nothing to vary; give values or an interval: training.lr=interval(1e-5,1e-4)"
            )
        if any(axis.key == SEED for axis in space.axes):
            raise ConfigError(
                f"sweep=optuna would search for the luckiest {SEED}; leave {SEED} out, and run the best job again with "
                f"several seeds: -m experiment=best {SEED}=0,1,2"
            )
        return [SweepJob(number, point) for number, point in enumerate(space.samples())]

    def proposals(self, space: Space, folder: Path) -> Generator[list[SweepJob], Mapping[int, Result], None]:
        """Yield jobs, first those that an earlier call left open, and receive their results.

        A point that is proposed again is not run again, because the same run would give the same result.

        Raises:
            ConfigError: Optuna is not installed, or the folder's study has other objectives.
        """
        study = self._study(folder)
        waiting = [trial.number for trial in study.trials if not trial.state.is_finished()]
        while waiting or len(study.trials) < self.trials:
            numbers, waiting = waiting[: self.max_parallel], waiting[self.max_parallel :]
            repeated: dict[int, int] = {}  # trial → the job among these with the same point
            while len(numbers) + len(repeated) < self.max_parallel and not waiting and len(study.trials) < self.trials:
                new = self._ask(study, space)
                twin = _twin(study, new)
                if twin is None or not (twin.state.is_finished() or twin.number in numbers):
                    numbers.append(new)
                elif twin.state.is_finished():
                    _tell_as(study, new, twin)
                else:
                    repeated[new] = twin.number
            points = {number: _point(study.trials[number].params) for number in numbers}
            results = (yield [SweepJob(number, point) for number, point in points.items()]) if numbers else {}
            for number in [*numbers, *repeated]:
                _tell(study, number, results[repeated.get(number, number)])

    def _ask(self, study: Study, space: Space) -> int:
        """Return the number of a new trial."""
        study.sampler = self._sampler(len(study.trials), space)
        return study.ask(fixed_distributions={axis.key: _distribution(axis) for axis in space.axes}).number

    def _study(self, folder: Path) -> Study:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("sweep=optuna needs Optuna; install it with: pip install 'embfit[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        wanted = [[objective.name, objective.direction] for objective in self.objectives]
        study = optuna.create_study(
            storage=storage(folder / STUDY),
            study_name=NAME,
            directions=[objective.direction for objective in self.objectives],
            load_if_exists=True,
        )
        begun = study.user_attrs.get(OBJECTIVES, wanted)
        if begun != wanted:
            was, now = (", ".join(" ".join(reversed(objective)) for objective in both) for both in (begun, wanted))
            raise ConfigError(
                f"{folder / STUDY} was begun to {was}, not to {now}; name another folder with run.dir=DIR"
            )
        study.set_user_attr(OBJECTIVES, wanted)
        return study

    def _sampler(self, number: int, space: Space) -> Any:
        """Return the sampler of one trial, seeded by its number, so that a resumed search makes the same draws."""
        import optuna
        from optuna.samplers import PartialFixedSampler, RandomSampler, TPESampler

        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {number}".encode()).digest()[:4])
        if number == 0 and self.default_first and len(space.default) == len(space.axes):
            fixed = {axis.key: _typed(axis, space.default[axis.key]) for axis in space.axes}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return PartialFixedSampler(fixed, RandomSampler(seed=seed))
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=self.startup, constant_liar=self.max_parallel > 1)


def storage(path: Path) -> Any:
    """Return Optuna's storage in a file that jobs append to, one at a time, from any machine."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def _tell(study: Study, number: int, result: Result) -> None:
    from optuna.trial import TrialState

    if result.found is not None:
        study.tell(number, list(result.found))
    elif result.state == "pruned":
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)


def _twin(study: Study, number: int) -> FrozenTrial | None:
    """Return an earlier trial at the same point, preferably one that has ended; None if there is none."""
    earlier = [trial for trial in study.trials[:number] if trial.params == study.trials[number].params]
    return min(earlier, key=lambda trial: not trial.state.is_finished(), default=None)


def _tell_as(study: Study, number: int, twin: FrozenTrial) -> None:
    from optuna.trial import TrialState

    done = twin.state is TrialState.COMPLETE
    study.tell(number, twin.values if done else None, twin.state)


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.span is None:
        return CategoricalDistribution(axis.values)
    span = axis.span
    if span.whole:
        return IntDistribution(int(span.low), int(span.high), log=span.log, step=int(span.step or 1))
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def _typed(axis: Axis, text: str) -> Any:
    if axis.span is None:
        return text
    return int(text) if axis.span.whole else float(text)


def _point(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else repr(value) for key, value in parameters.items()}
