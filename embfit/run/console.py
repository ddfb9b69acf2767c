"""Log lines and errors for the user, on stderr, so that stdout holds only results."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from contextlib import suppress
from os import environ

from embfit.run.exit_status import ExitStatus, exit_status

OURS = "embfit"  # loggers whose info lines are shown; of others, only warnings
FULL_ERROR = "EMBFIT_FULL_ERROR"


class Console(logging.Handler):
    """Writes log records as plain lines to the current stderr, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a warning begins with its level."""
        if record.name == "py.warnings":
            return  # Python warnings address developers; the run's log.txt has them
        if record.levelno < logging.WARNING and record.name.split(".")[0] != OURS:
            return
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        with suppress(OSError, ValueError):  # a closed terminal must not end the run; log.txt has the line
            print(f"{level}{record.getMessage()}", file=sys.stderr, flush=True)


def accept_any_character() -> None:
    """Write `?` for a character that stdout cannot encode, as in a Latin-1 terminal, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a test or a notebook may have replaced stdout
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
    """Write an error for the user, after its traceback if `EMBFIT_FULL_ERROR=1` is set."""
    if error is not None and environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error, file=sys.stderr)
    print(f"embfit: error: {message}", file=sys.stderr, flush=True)


def report(error: BaseException, prefix: str = "") -> ExitStatus:
    """Show an exception to the user, if there is one, and return its exit status."""
    end = exit_status(error)
    if end.message:
        where = getattr(error, "__notes__", [] if end.expected else [f"{FULL_ERROR}=1 shows the traceback"])
        show_error("\n  ".join([prefix + end.message, *where[-1:]]), error)
    return end
