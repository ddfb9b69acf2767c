"""Errors that a user can cause and mend: shown as their message alone, without a traceback."""

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


def is_disk_full(error: BaseException) -> bool:
    """Say whether a disk, or a share of one, is full; libraries that give no number are known by their words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return not isinstance(error, UserError) and FULL.search(str(error)) is not None
