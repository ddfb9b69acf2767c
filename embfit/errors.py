"""Errors that a user can cause and repair; they are shown as their message alone, without a traceback."""

from __future__ import annotations

import errno
import re

FULL = re.compile(
    r"No space left on device|os error 28\b|Disk quota exceeded"  # safetensors, Arrow
    r"|\d+ requested and \d+ written"  # NumPy
    r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"  # PyTorch
    r"|database or disk is full"  # SQLite
)

DEVICE_MEMORY = (
    "the device is out of memory; in training lower training.token_budget (16384 on a GPU) or set "
    "training.gradient_checkpointing=true; elsewhere choose a smaller model, or free the device of other programs"
)


class UserError(Exception):
    """Something outside embfit's code is wrong: a file, a value, the disk.

    The message takes one or two lines and gives the value, the limit and the remedy.
    """

    exit_code = 1


class ConfigError(UserError):
    """The configuration or command line is wrong; nothing has been read or computed yet."""

    exit_code = 2


class UnavailableError(UserError):
    """A server that the work needs does not answer; it may later."""


class Pruned(Exception):  # noqa: N818  # nothing went wrong
    """A sweep ended this run early because others were better at the same validation; the message says by how much."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_disk_full(error: BaseException) -> bool:
    """Say whether an error means that a disk or a quota is full; errors without a number are known by their message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return not isinstance(error, UserError) and FULL.search(str(error)) is not None
