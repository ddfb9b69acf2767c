"""Ctrl-C and SIGTERM while a server is asked."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


async def until_interrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Let Ctrl-C and SIGTERM end the work where it waits, so that an answer that has come is recorded.

    A signal handler that raises could do so after an answer has come and before it is on disk.

    Raises:
        asyncio.CancelledError: one of the two has come.
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
