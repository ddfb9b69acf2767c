"""The summary of a sweep: a table for the terminal, `summary.json`, and the content of `summary.html`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embfit.atomic_files import write_text
from embfit.compose.explain import aligned
from embfit.sweep.candidates import SweepCandidate, candidates, comparable, front
from embfit.sweep.default_comparison import DefaultComparison
from embfit.sweep.job import ENDED, Result
from embfit.sweep.objective import Objective

FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """All results of a sweep.

    Args:
        command: the command line that was typed.
        objectives: the numbers by which jobs are compared; the first one ranks them.
        results: the jobs' results, in the order of their numbers.
        verdict: the comparison of the best point with the default, or the reason why they are not compared.
    """

    command: str
    objectives: Sequence[Objective]
    results: Sequence[Result]
    verdict: DefaultComparison | str | None = None

    @property
    def ranked(self) -> list[Result]:
        """The results, ordered by the first objective, the best one first; unfinished jobs come last."""
        objective = self.objectives[0]

        def place(result: Result) -> tuple[bool, bool, float]:
            value = result.values[0] if result.values else None
            return result.state != "done", value is None, objective.sign * (value or 0)

        return sorted(self.results, key=place)

    @cached_property
    def found(self) -> list[SweepCandidate]:
        """The points with a finished job."""
        return candidates(self.results)

    @cached_property
    def candidates(self) -> list[SweepCandidate]:
        """The points that the sweep chooses among: those with the most seeds."""
        return comparable(self.found)

    @cached_property
    def front(self) -> list[SweepCandidate]:
        """The Pareto front: the points that no other point beats (see `candidates.front`)."""
        return front(self.candidates, self.objectives)

    @property
    def best(self) -> SweepCandidate | None:
        """The point of the front that is best in the first objective; None if no job has all objectives."""
        return next(iter(self.front), None)

    @property
    def unfinished(self) -> list[Result]:
        """Jobs that failed, were interrupted or were not begun."""
        return [result for result in self.results if result.state not in ENDED]

    @property
    def sentence(self) -> str:
        """The results in a few sentences."""
        states = [result.state for result in self.results]
        words = f"{states.count('done')} of {len(states)} jobs done"
        if pruned := states.count("pruned"):
            words += f", {pruned} pruned"
        if self.best is not None:
            words += f"; best {self.score(self.best)} in {_jobs(self.best)} ({_shown(self.best)})"
            words += self._front_words() + self._left_out_words()
        elif "done" in states:
            missing = " and ".join(objective.name for objective in self.objectives)
            words += f"; no report has {missing}, so there is no best job (set sweep.objective)"
        return words

    def _front_words(self) -> str:
        if len(self.objectives) == 1:
            return ""
        jobs = "; ".join(f"{_jobs(one)}: {self.score(one)}" for one in self.front)
        return (
            f"\nthe front (no other point is better in one objective without being worse in another): {jobs}\n"
            f"the best is the point of the front with the best {self.objectives[0].name}"
        )

    def _left_out_words(self) -> str:
        left_out = [f"{_shown(one)} ({_jobs(one)})" for one in self.found if one not in self.candidates]
        return f"\nnot compared, because other points have more seeds: {'; '.join(left_out)}" if left_out else ""

    def score(self, candidate: SweepCandidate) -> str:
        """Return a point's objectives in words."""
        values = zip(self.objectives, candidate.values, strict=True)
        words = ", ".join(f"{objective.name} {value:.4f}" for objective, value in values)
        return words + (f" (mean of {len(candidate.results)} seeds)" if len(candidate.results) > 1 else "")

    def table(self) -> list[tuple[str, ...]]:
        """Return the table's rows, the heading first."""
        keys = list(dict.fromkeys(key for result in self.results for key in result.job.point))
        systems = list(dict.fromkeys(name for result in self.results for name in result.headline))
        names = [objective.name for objective in self.objectives]
        head = ("job", *keys, *names, *(f"report {name}" for name in systems), "minutes", "")
        return [head, *(self._row(result, keys, systems) for result in self.ranked)]

    def _row(self, result: Result, keys: list[str], systems: list[str]) -> tuple[str, ...]:
        values = result.values or (None,) * len(self.objectives)
        return (
            str(result.job.number),
            *(result.job.point.get(key, "") for key in keys),
            *("" if value is None else f"{value:.4f}" for value in values),
            *(f"{result.headline[name]:.4f}" if name in result.headline else "" for name in systems),
            "" if result.minutes is None else f"{result.minutes:.1f}",
            self._note(result),
        )

    def _note(self, result: Result) -> str:
        if result.state != "done":
            return ": ".join(filter(None, [result.state, result.error]))
        return "front" if len(self.objectives) > 1 and self.on_front(result) else ""

    def on_front(self, result: Result) -> bool:
        """Say whether a job belongs to a point of the front."""
        return any(result in candidate.results for candidate in self.front)

    def text(self) -> str:
        """Return the table and the sentences, for a terminal."""
        return "\n".join([*aligned(self.table()), self.sentence, *self.verdict_lines])

    @property
    def verdict_lines(self) -> list[str]:
        """The sentence that compares the best point with the default, or nothing."""
        if self.verdict is None:
            return []
        return [self.verdict if isinstance(self.verdict, str) else self.verdict.sentence]

    def record(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        best = self.best
        return {
            "command": self.command,
            "objectives": [asdict(objective) for objective in self.objectives],
            "best": best and best.results[0].job.number,
            "best_jobs": [result.job.number for result in best.results] if best else [],
            "front": [[result.job.number for result in one.results] for one in self.front],
            "against_default": asdict(self.verdict) if isinstance(self.verdict, DefaultComparison) else self.verdict,
            "jobs": [self._job(result) for result in self.results],
        }

    def _job(self, result: Result) -> dict[str, Any]:
        values = result.values or (None,) * len(self.objectives)
        return {
            "number": result.job.number,
            "point": dict(result.job.point),
            "state": result.state,
            "error": result.error,
            "values": {objective.name: value for objective, value in zip(self.objectives, values, strict=True)},
            "headline": dict(result.headline),
            "minutes": result.minutes,
        }

    def write(self, folder: Path) -> None:
        """Write `summary.json`."""
        write_text(folder / FILE, json.dumps(self.record(), indent=2, ensure_ascii=False) + "\n")


def _jobs(candidate: SweepCandidate) -> str:
    numbers = [str(result.job.number) for result in candidate.results]
    return f"job {numbers[0]}" if len(numbers) == 1 else f"jobs {', '.join(numbers)}"


def _shown(candidate: SweepCandidate) -> str:
    return " ".join(f"{key}={value}" for key, value in candidate.point.items())
