"""How a run ended: a state, an exit code, and a message of one or two lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embfit.errors import DEVICE_MEMORY, Pruned, UserError, first_line, is_disk_full
from embfit.run.full_disk import full_disk

State = Literal["done", "pruned", "failed", "interrupted"]


@dataclass(frozen=True)
class ExitStatus:
    """How something ended.

    Args:
        state: as in `status.json`.
        exit_code: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
        message: the message for the user; empty on success.
        expected: whether the message explains the error; otherwise the traceback is needed to find the cause.
    """

    state: State
    exit_code: int
    message: str = ""
    expected: bool = True


def exit_status(error: BaseException | None) -> ExitStatus:
    """Return the exit status for an exception, or for None."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return ExitStatus("done", 0)
    if _is_interrupt(error):
        return ExitStatus("interrupted", 130, "interrupted")
    if isinstance(error, Pruned):
        return ExitStatus("pruned", 0, str(error))
    if isinstance(error, UserError):
        return ExitStatus("failed", error.exit_code, str(error))
    if isinstance(error, SystemExit):
        return ExitStatus("failed", error.code if isinstance(error.code, int) else 1, f"ended with {error.code}")
    if is_disk_full(error):
        return ExitStatus("failed", 1, full_disk(error, {}))
    if isinstance(error, OSError) and error.errno is not None:
        return ExitStatus("failed", 1, _system(error))
    if memory := _memory(error):
        return ExitStatus("failed", 1, memory)
    said = f": {first_line(error)}" if str(error).strip() else ""
    return ExitStatus("failed", 1, f"unexpected {type(error).__name__}{said}", expected=False)


def _is_interrupt(error: BaseException) -> bool:
    """Return whether Ctrl-C caused an exception: libraries turn it into an exit of their own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__ if isinstance(seen, SystemExit) else None
    return False


def _memory(error: BaseException) -> str:
    """Return the remedy if an exception means too little memory; PyTorch's are recognised without importing it."""
    if type(error).__name__ == "OutOfMemoryError" or "backend out of memory" in str(error):  # the latter on Apple's
        return DEVICE_MEMORY
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate" in str(error):
        return "out of memory; choose a smaller model or batch, or a machine with more"
    return ""


def _system(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}"
