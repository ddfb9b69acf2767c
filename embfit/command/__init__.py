"""Commands besides running a task: `embfit pack`, `embfit runs`, … Each is a module with a function `run`.

If the first word of a command line is one of these, it is a command. Every other command line is Hydra's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from embfit.compose.command_line import COMMANDS


def command(word: str) -> Callable[[Sequence[str]], None] | None:
    """Return the function that a command runs; None if the word is not a command."""
    if word not in COMMANDS:
        return None
    run: Callable[[Sequence[str]], None] = importlib.import_module(f"embfit.command.{word}").run
    return run
