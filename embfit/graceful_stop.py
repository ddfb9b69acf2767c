"""Graceful stops: Ctrl-C or SIGTERM sets a flag, and the work ends itself at a suitable point."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # schedulers send SIGTERM


class GracefulStop:
    """Treats the first signal as a request to stop; the second one ends the process as usual.

    Args:
        message: the log message at the request, which says what is finished first.

    Attributes:
        asked: whether a stop was requested.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside this context; a signal that the process already ignores stays ignored."""
        if threading.current_thread() is not threading.main_thread():  # other threads receive no signals
            yield
            return
        process = os.getpid()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked or os.getpid() != process:  # a forked worker ends at once, as usual
                signal.signal(number, before[signal.Signals(number)])
                os.kill(os.getpid(), number)
                return
            self.asked = True
            log.warning("%s", self.message)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
