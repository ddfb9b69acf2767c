"""Errors that a user can cause and mend: shown as their message alone, without a traceback."""

from __future__ import annotations

DEVICE_MEMORY = (
    "the device is out of memory; in training lower training.token_budget (16384 on a GPU) or set "
    "training.gradient_checkpointing=true, elsewhere choose a smaller model or free the device"
)


class UserError(Exception):
    """Something outside embfit's code is wrong: a file, a value, the disk. One or two lines: value, limit, remedy."""

    exit_code = 1


class ConfigError(UserError):
    """The configuration or command line is wrong; nothing was read or computed yet."""

    exit_code = 2


class Pruned(Exception):  # noqa: N818  # nothing went wrong
    """A sweep has ended this run, since others are better at the same point; the message tells how much."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its class's name when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
