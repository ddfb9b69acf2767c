"""What is wrong with a configuration, gathered so that a user sees all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from embfit.errors import ConfigError


@dataclass(frozen=True)
class Problem:
    """One error in a configuration.

    Args:
        key: the key that it is about (`training.epochs`).
        message: what is wrong and what would be right.
        place: where the value was written (`conf/training/in-batch.yaml:9`, `command line`).
    """

    key: str
    message: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f" ({self.place})" if self.place else "")


class ProblemsError(ConfigError):
    """Several things to mend, as one error.

    Args:
        lines: the lines of the message, one for each problem.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        several = "\n  ".join([f"{len(self.lines)} problems in the configuration:", *self.lines])
        super().__init__(self.lines[0] if len(self.lines) == 1 else several)


def refuse(problems: Iterable[Problem | str]) -> None:
    """Raise all problems as one error, or return when there are none.

    Raises:
        ConfigError: one line for each problem.
    """
    if lines := [str(problem) for problem in problems]:
        raise ProblemsError(lines)


Found = TypeVar("Found")


def gather(checks: Iterable[Callable[[], Found]]) -> list[Found]:
    """Return what several calls return.

    Raises:
        ConfigError: all that any of them refuses, each line once.
    """
    found: list[Found] = []
    lines: dict[str, None] = {}
    for check in checks:
        try:
            found.append(check())
        except ProblemsError as error:
            lines |= dict.fromkeys(error.lines)
        except ConfigError as error:
            lines[str(error)] = None
    refuse(lines)
    return found
