"""The number of concurrent requests: it falls when a server is busy, and then slowly rises again.

The limit rises by one after as many answers as it allows requests, and falls by a quarter when the server is busy
(additive increase, multiplicative decrease: Chiu and Jain 1989). A refusal of a request that was sent before the last
decrease does not lower it again. While the server has asked for a pause, in any answer, nothing is sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

DECREASE = 0.75
FIRST_PAUSE = 1.0  # seconds; doubled with each consecutive refusal
LONGEST_PAUSE = 60.0


def pause_before(tries: int, chance: random.Random) -> float:
    """Return the seconds to wait after consecutive failures: doubled with each, times a random factor of 0.5 to 1."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 16)) * chance.uniform(0.5, 1.0)


class Pace:
    """The limit of concurrent requests, which all requests share.

    Args:
        most: the highest limit, which is also the first.
        chance: draws the pauses.
        clock: returns the time in seconds.
    """

    def __init__(self, most: int, chance: random.Random, clock: Callable[[], float]) -> None:
        self.most = self.limit = most
        self.active = 0
        self.decreases = 0
        self._chance, self._clock = chance, clock
        self._quiet_until = self._decreased = float("-inf")
        self._answers = self._refusals = 0
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until a request may be sent, and count it as active while the block runs."""
        while True:
            if (left := self._quiet_until - self._clock()) > 0:
                await asyncio.sleep(left)
            elif self.active < self.limit:
                break
            else:
                await self.changed()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._wake()

    async def changed(self) -> None:
        """Wait until a request has ended, or the limit has risen."""
        await self._changed.wait()

    def answered(self) -> None:
        """Count an answer."""
        self._refusals = 0
        self._answers += 1
        if self._answers >= self.limit < self.most:
            self.limit += 1
            self._answers = 0
            self._wake()

    def busy(self, sent: float, pause: float | None) -> None:
        """Pause all requests, and lower the limit.

        Args:
            sent: when the refused request was sent.
            pause: the seconds that the server asks to wait; None if it does not say.
        """
        if sent >= self._decreased:
            self._refusals += 1
            self.limit = max(1, int(self.limit * DECREASE))
            self._decreased, self._answers = self._clock(), 0
            self.decreases += 1
        wait = pause_before(max(1, self._refusals), self._chance) if pause is None else pause
        self._quiet_until = max(self._quiet_until, self._clock() + wait)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
