"""How many requests are under way at once, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import random

from embfit.generator.concurrency import Pace, pause_before


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_burst_of_refusals_slows_down_once() -> None:
    clock = Clock()
    pace = Pace(8, random.Random(0), clock)
    for _ in range(5):
        pace.busy(sent=99.0, pause=0.0)  # all were sent before the first refusal came
        clock.now += 1
    assert (pace.limit, pace.decreases) == (6, 1)
    pace.busy(sent=clock.now, pause=0.0)
    assert (pace.limit, pace.decreases) == (4, 2)


def test_the_limit_rises_by_one_after_as_many_answers() -> None:
    pace = Pace(8, random.Random(0), Clock())
    pace.busy(100.0, 0.0)
    limits = []
    for _ in range(20):
        pace.answered()
        limits.append(pace.limit)
    assert limits == [6] * 5 + [7] * 7 + [8] * 8
    for _ in range(10):
        pace.busy(1e9, 0.0)
    assert pace.limit == 1


def test_no_more_than_the_limit_are_under_way() -> None:
    pace = Pace(3, random.Random(0), Clock())
    most = 0

    async def send() -> None:
        nonlocal most
        async with pace.slot():
            most = max(most, pace.active)
            await asyncio.sleep(0.001)

    async def send_all() -> None:
        await asyncio.gather(*(send() for _ in range(20)))

    asyncio.run(send_all())
    assert (most, pace.active) == (3, 0)


def test_pauses_double_up_to_a_limit(monkeypatch) -> None:
    monkeypatch.setattr("embfit.generator.concurrency.FIRST_PAUSE", 1.0)
    monkeypatch.setattr("embfit.generator.concurrency.LONGEST_PAUSE", 60.0)
    pauses = [[pause_before(tries, random.Random(seed)) for seed in range(200)] for tries in (1, 2, 3, 20)]
    for longest, some in zip((1.0, 2.0, 4.0, 60.0), pauses, strict=True):
        assert 0.5 * longest <= min(some) < 0.52 * longest
        assert 0.98 * longest < max(some) <= longest
