"""What is wrong with a configuration, gathered so that a user sees all of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from embfit.errors import ConfigError


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    Args:
        key: what it is about (`training.epochs`).
        message: what is wrong and what would be right.
        place: where the value was written (`conf/training/in-batch.yaml:9`, `command line`).
    """

    key: str
    message: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f" ({self.place})" if self.place else "")


def refuse(problems: Iterable[Problem | str]) -> None:
    """Raise all problems as one error, or return when there are none.

    Raises:
        ConfigError: one line for each problem.
    """
    lines = [str(problem) for problem in problems]
    if len(lines) == 1:
        raise ConfigError(lines[0])
    if lines:
        raise ConfigError("\n  ".join([f"{len(lines)} problems in the configuration:", *lines]))
