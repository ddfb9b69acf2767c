"""What stands before Hydra's command line: `embfit pack`, `embfit runs`, … One module per word, each with a `run`.

A first word that is one of these is a command; everything else on a command line is Hydra's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from embfit.compose.command_line import COMMANDS


def command(word: str) -> Callable[[Sequence[str]], None] | None:
    """Return what a first word runs, None when it is not a command."""
    if word not in COMMANDS:
        return None
    run: Callable[[Sequence[str]], None] = importlib.import_module(f"embfit.command.{word}").run
    return run
