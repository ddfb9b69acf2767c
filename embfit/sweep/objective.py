"""Objectives: the numbers by which a sweep compares runs, and whether a larger or a smaller value is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from embfit.compose.problems import Problem
from embfit.compose.value_origins import leaves
from embfit.errors import ConfigError
from embfit.suggestions import suggestion

Direction: TypeAlias = Literal["maximize", "minimize"]

DEV = "dev."
CONFIG = "config."
MINUTES = "minutes"


@dataclass(frozen=True)
class Objective:
    """A number by which runs are compared.

    Args:
        name: `dev.METRIC`, `minutes`, `config.KEY`, or the path of a number in `report.json`.
        direction: whether a larger or a smaller value is better.
    """

    name: str
    direction: Direction

    @property
    def sign(self) -> int:
        """The factor that turns a value into a cost, of which less is better."""
        return -1 if self.direction == "maximize" else 1


def pair_objectives(
    objective: str | Sequence[str], direction: Direction | Sequence[Direction]
) -> tuple[Objective, ...]:
    """Return the objectives of a configuration, each with its direction.

    Raises:
        ConfigError: the numbers of objectives and directions differ.
    """
    names = [objective] if isinstance(objective, str) else list(objective)
    ways: list[Direction] = [direction] if isinstance(direction, str) else list(direction)
    if not names or len(names) != len(ways):
        raise ConfigError(
            f"sweep.objective has {len(names)} entries and sweep.direction has {len(ways)}; give each objective its "
            "direction, such as sweep.objective=[dev.ndcg@10,minutes] sweep.direction=[maximize,minimize]"
        )
    return tuple(Objective(name, way) for name, way in zip(names, ways, strict=True))


def unknown_objectives(
    objectives: Sequence[Objective], configs: Sequence[Mapping[str, Any]], place: str
) -> Iterator[Problem]:
    """Yield the objectives that no job can have: metrics that are not measured on dev, and keys that do not exist.

    Args:
        objectives: the sweep's objectives.
        configs: the configurations of the jobs.
        place: where `sweep.objective` was written.
    """
    for objective in objectives:
        known = set().union(*(_possible_objectives(objective.name, config) or {objective.name} for config in configs))
        if configs and objective.name not in known:
            what = "no such metric is measured" if objective.name.startswith(DEV) else "there is no number at this key"
            yield Problem("sweep.objective", f"{objective.name}: {what}{suggestion(objective.name, known)}", place)


def _possible_objectives(objective: str, config: Mapping[str, Any]) -> set[str]:
    """Return the objectives of the same kind that a job will have; empty if only its report can tell."""
    from embfit.evaluator.metrics import VALIDATION_METRIC  # brings torch, which an error need not wait for

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
    """Return an objective's value in a run; None if the run does not have it.

    Args:
        objective: the objective's name: `dev.METRIC` is the validation of the weights that were kept, in which the test
            split has no part; `minutes` is how long the run took; `config.KEY` is a setting, such as
            `config.training.batch_size`; anything else is the path of a number in the report, such as
            `systems.tuned.metrics.ndcg@10` or `timings.train`.
        report: the content of `report.json`.
        config: the content of `config.yaml`.
        minutes: how long the run took; None if it is not known.
    """
    if objective == MINUTES:
        return minutes
    if objective.startswith(DEV):
        metric = objective.removeprefix(DEV)
        training = report.get("training") or {}
        kept = (entry for entry in training.get("history", []) if entry["step"] == training["kept_step"])
        return next((entry.get(metric) for entry in kept), None)
    if objective.startswith(CONFIG):
        return _number(config, objective.removeprefix(CONFIG))
    return _number(report, objective)


def _number(tree: Mapping[str, Any], path: str) -> float | None:
    found: Any = tree
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
