"""Ctrl-C and SIGTERM during requests to a server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


async def until_interrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Let Ctrl-C and SIGTERM cancel the work only where it awaits, so that every received answer is recorded.

    A signal handler that raises could do so after an answer is received and before it is on disk.

    Raises:
        asyncio.CancelledError: one of the signals was received.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled: list[signal.Signals] = []
    try:
        with suppress(RuntimeError, ValueError):  # outside the main thread, where no signal arrives
            for number in before:
                loop.add_signal_handler(number, task.cancel)
                handled.append(number)
        return await work
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
