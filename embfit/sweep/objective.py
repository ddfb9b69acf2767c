"""What a sweep looks for: numbers of a run, and whether more or less of each is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from embfit.compose.origins import leaves
from embfit.compose.problems import Problem
from embfit.errors import ConfigError
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.nearest import suggestion

Direction: TypeAlias = Literal["maximize", "minimize"]

DEV = "dev."
CONFIG = "config."
MINUTES = "minutes"


@dataclass(frozen=True)
class Objective:
    """One number to look at.

    Args:
        name: `dev.METRIC`, `minutes`, `config.KEY`, or the path of a number in `report.json`.
        direction: whether more or less of it is better.
    """

    name: str
    direction: Direction

    @property
    def sign(self) -> int:
        """What to multiply it by, so that less is better."""
        return -1 if self.direction == "maximize" else 1


def pair_objectives(
    objective: str | Sequence[str], direction: Direction | Sequence[Direction]
) -> tuple[Objective, ...]:
    """Pair objectives with directions, as a configuration writes both.

    Raises:
        ConfigError: there are not as many of one as of the other.
    """
    names = [objective] if isinstance(objective, str) else list(objective)
    ways: list[Direction] = [direction] if isinstance(direction, str) else list(direction)
    if not names or len(names) != len(ways):
        raise ConfigError(
            f"sweep.objective names {len(names)} and sweep.direction {len(ways)}; give each objective its direction, "
            "such as sweep.objective=[dev.ndcg@10,minutes] sweep.direction=[maximize,minimize]"
        )
    return tuple(Objective(name, way) for name, way in zip(names, ways, strict=True))


def unknown_objectives(
    objectives: Sequence[Objective], configs: Sequence[Mapping[str, Any]], place: str
) -> Iterator[Problem]:
    """Yield the objectives that no job can have: metrics that are not measured on dev, and keys that are not there.

    Args:
        objectives: what is looked for.
        configs: of the jobs.
        place: where `sweep.objective` was written.
    """
    for objective in objectives:
        known = set().union(*(_foreseen(objective.name, config) or {objective.name} for config in configs))
        if configs and objective.name not in known:
            what = "no such metric is measured" if objective.name.startswith(DEV) else "there is no number at this key"
            yield Problem("sweep.objective", f"{objective.name}: {what}{suggestion(objective.name, known)}", place)


def _foreseen(objective: str, config: Mapping[str, Any]) -> set[str]:
    """Return the objectives of the same kind that a job will have; nothing where only its report can tell."""
    evaluator = config.get("evaluator") or {}
    if objective.startswith(DEV) and evaluator.get("_target_") == "embfit.evaluator.Retrieval":
        dims = [f"{DEV}{VALIDATION_METRIC}/{dim}" for dim in evaluator.get("dims") or ()]
        return {f"{DEV}{metric}" for metric in (VALIDATION_METRIC, *evaluator["metrics"])} | set(dims)
    if objective.startswith(CONFIG):
        return {f"{CONFIG}{key}" for key, _ in leaves(config) if _number(config, key) is not None}
    return set()


def numbers(report: Mapping[str, Any]) -> list[str]:
    """Return the objectives that a run's report has: dev metrics, systems' metrics, timings."""
    history = (report.get("training") or {}).get("history", [])
    systems = {name: system.get("metrics") or {} for name, system in (report.get("systems") or {}).items()}
    found = [f"{DEV}{metric}" for entry in history for metric in entry if metric != "step"]
    found += [f"systems.{name}.metrics.{metric}" for name, metrics in systems.items() for metric in metrics]
    found += [f"timings.{stage}" for stage in report.get("timings") or {}]
    return list(dict.fromkeys(found))


def read_objective(
    objective: str, report: Mapping[str, Any], config: Mapping[str, Any], minutes: float | None
) -> float | None:
    """Return one number of a run, None when it is not there.

    Args:
        objective: `dev.METRIC` for the best validation of the training, which the test split has no part in; `minutes`
            for how long the run took; `config.KEY` for a setting, such as `config.training.batch_size`; else the path
            of a number in the report, such as `systems.tuned.metrics.ndcg@10` or `timings.train`.
        report: `report.json`.
        config: `config.yaml`.
        minutes: that the run took.
    """
    if objective == MINUTES:
        return minutes
    if objective.startswith(DEV):
        metric = objective.removeprefix(DEV)
        history = (report.get("training") or {}).get("history", [])
        return max((entry[metric] for entry in history if entry.get(metric) is not None), default=None)
    if objective.startswith(CONFIG):
        return _number(config, objective.removeprefix(CONFIG))
    return _number(report, objective)


def _number(tree: Mapping[str, Any], path: str) -> float | None:
    found: Any = tree
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
