"""What the end of a run means to its user: a state, an exit code, and one or two lines."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Literal

from embfit.errors import DEVICE_MEMORY, Pruned, UserError, first_line

FULL = re.compile(
    r"No space left on device|os error 28\b|Disk quota exceeded"  # safetensors, Arrow
    r"|\d+ requested and \d+ written"  # NumPy
    r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"  # PyTorch
    r"|database or disk is full"  # SQLite
)
State = Literal["done", "pruned", "failed", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How something ended.

    Args:
        state: as in `status.json`.
        exit_code: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
        message: for the user; empty when all went well.
        expected: the message says all there is to say; else the traceback is needed to mend the cause.
    """

    state: State
    exit_code: int
    message: str = ""
    expected: bool = True


def outcome(error: BaseException | None) -> Outcome:
    """Return what an exception, or its absence, means."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return Outcome("done", 0)
    if _is_interrupt(error):
        return Outcome("interrupted", 130, "interrupted")
    if isinstance(error, Pruned):
        return Outcome("pruned", 0, str(error))
    if isinstance(error, UserError):
        return Outcome("failed", error.exit_code, str(error))
    if isinstance(error, SystemExit):
        return Outcome("failed", error.code if isinstance(error.code, int) else 1, f"ended with {error.code}")
    if is_disk_full(error):
        return Outcome("failed", 1, _disk(error))
    if isinstance(error, OSError) and error.errno is not None:
        return Outcome("failed", 1, _system(error))
    if memory := _memory(error):
        return Outcome("failed", 1, memory)
    said = f": {first_line(error)}" if str(error).strip() else ""
    return Outcome("failed", 1, f"unexpected {type(error).__name__}{said}", expected=False)


def _is_interrupt(error: BaseException) -> bool:
    """Say whether Ctrl-C is behind it: libraries turn it into an exit of their own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__ if isinstance(seen, SystemExit) else None
    return False


def _memory(error: BaseException) -> str:
    """Say what to do if memory was short; PyTorch, which is not imported here, is known by its name and words."""
    if type(error).__name__ == "OutOfMemoryError" or "backend out of memory" in str(error):  # the latter on Apple's
        return DEVICE_MEMORY
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate" in str(error):
        return "out of memory; choose a smaller model or batch, or a machine with more"
    return ""


def is_disk_full(error: BaseException) -> bool:
    """Say whether a disk, or a share of one, is full; libraries that give no number are known by their words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return not isinstance(error, UserError) and FULL.search(str(error)) is not None


def _disk(error: BaseException) -> str:
    where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    return f"the disk is full{where}; free some space, or put store.dir and run.dir on another disk"


def _system(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}"
