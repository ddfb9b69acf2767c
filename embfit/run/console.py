"""What a user reads while embfit works: log lines and errors, on stderr, so that stdout is results alone."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from contextlib import suppress
from os import environ

from embfit.run.exit_status import ExitStatus, exit_status

OURS = "embfit"  # whose log lines of level info are for the user; of others, warnings
FULL_ERROR = "EMBFIT_FULL_ERROR"


class Console(logging.Handler):
    """Writes log records as plain lines to whatever stderr is at that moment: a progress bar may stand in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a warning says that it is one."""
        if record.name == "py.warnings":
            return  # Python warnings address developers; the run's log.txt has them
        if record.levelno < logging.WARNING and record.name.split(".")[0] != OURS:
            return
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        with suppress(OSError, ValueError):  # a closed terminal must not end the run; log.txt has the line
            print(f"{level}{record.getMessage()}", file=sys.stderr, flush=True)


def accept_any_character() -> None:
    """Write `?` for a character that stdout cannot encode, as in a Latin-1 terminal: output for people ends no work."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a test or a notebook stands in for it
        sys.stdout.reconfigure(errors="replace")


def listen() -> None:
    """Show log lines to the user from now on; safe to call again."""
    accept_any_character()
    root = logging.getLogger()
    if not any(isinstance(handler, Console) for handler in root.handlers):
        root.addHandler(Console())
    root.setLevel(min(root.level or logging.INFO, logging.INFO))
    logging.captureWarnings(True)


def show_error(message: str, error: BaseException | None = None) -> None:
    """Write an error for the user, after its traceback when `EMBFIT_FULL_ERROR=1` asks for that."""
    if error is not None and environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error, file=sys.stderr)
    print(f"embfit: error: {message}", file=sys.stderr, flush=True)


def report(error: BaseException, prefix: str = "") -> ExitStatus:
    """Show what an exception means to the user, if anything, and return it."""
    end = exit_status(error)
    if end.message:
        where = getattr(error, "__notes__", [] if end.expected else [f"{FULL_ERROR}=1 shows the traceback"])
        show_error("\n  ".join([prefix + end.message, *where[-1:]]), error)
    return end
