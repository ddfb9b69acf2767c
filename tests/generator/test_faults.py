"""Faults that come together, and one that lasts a minute: nothing answered is asked again, and the budget holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embfit.errors import UserError
from embfit.generator import asking, concurrency
from embfit.generator.asking_settings import AskingSettings
from embfit.generator.budget import Budget
from embfit.generator.concurrency import Pace
from embfit.generator.journal import Journal
from embfit.generator.plan import QueryRequest, scope_of
from tests.generator.model_server import Answer, ModelServer, about, queries, says
from tests.generator.test_asking import ask, spent

Make = Callable[..., list[QueryRequest]]
SETTINGS = AskingSettings("tiny", concurrency=6, tries=4)

FAULTS = [
    says("as an AI I cannot"),
    says('{"queries": ["half'),
    says(""),
    says('{"anfragen": ["auf Deutsch"]}'),
    Answer(body=b"<html><body>proxy</body></html>"),
    Answer(body=b"\x00\xff" * 50),
    Answer(500),
    Answer(408),
    Answer(429),
    Answer(503, headers={"Retry-After": "0"}),
    Answer(reset=True),
    Answer(drip=0.4, body=b"x" * 99),
]


class Clock:
    """Seconds that pass when all wait for them: while a request is under way, none do."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace: Pace

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        while self.pace.active:
            await asyncio.sleep(0.001)
        self.now = max(self.now, until)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of whatever asks, with the pauses that a user has."""
    found = Clock()

    def new_pace(most: int, chance: random.Random, clock: Callable[[], float]) -> Pace:
        found.pace = Pace(most, chance, clock)
        return found.pace

    monkeypatch.setattr(asking, "Pace", new_pace)
    monkeypatch.setattr(concurrency, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(concurrency, "LONGEST_PAUSE", 60.0)
    monkeypatch.setattr(concurrency, "asyncio", SimpleNamespace(sleep=found.sleep, Event=asyncio.Event))
    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=found))
    return found


@pytest.mark.parametrize("retry_after", [None, "60"])
def test_a_server_that_is_busy_for_a_minute_is_waited_for(
    tmp_path: Path, make_requests: Make, clock: Clock, retry_after: str | None
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    requests = make_requests(30)
    with ModelServer(lambda *_: Answer(429, headers=headers) if clock.now < 60 else queries("a")) as server:
        counted, found = ask(server, tmp_path / "j", requests, SETTINGS)
    assert set(found.values()) == {"answered"}
    assert set(server.answered.values()) == {1}
    assert 60 <= clock.now < 130
    refused = server.requests - len(requests)
    assert refused <= (6 if retry_after else 6 + 5 * 4)  # six at once, then 4, 3, 2, 1, 1 of them after longer pauses
    assert spent(tmp_path / "j", requests).requests == server.requests
    assert counted.pace.decreases >= 1


def test_a_server_that_is_busy_for_longer_than_patience_ends_it(
    tmp_path: Path, make_requests: Make, clock: Clock
) -> None:
    with ModelServer(lambda *_: Answer(429)) as server, pytest.raises(UserError, match=r"nothing for [67]"):
        ask(server, tmp_path / "j", make_requests(30), replace(SETTINGS, patience=60.0))
    assert 60 < clock.now < 130


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_whatever_happens_nothing_answered_is_asked_again_and_the_budget_holds(
    tmp_path: Path, make_requests: Make, seed: int
) -> None:
    """Half of all answers are faults, drawn at random; run after run is started until all is answered."""
    requests = make_requests(40)
    most = SETTINGS.most(requests[0]).tokens

    def answer(body: dict[str, Any], before: int) -> Answer:
        chance = random.Random(f"{seed} {about(body)} {before}")
        return chance.choice(FAULTS) if chance.random() < 0.5 else queries(f"what is {about(body)}")

    with ModelServer(answer) as server:
        for limit in (15 * most, 40 * most, *[None] * 8):
            settings = replace(SETTINGS, budget=Budget(tokens=limit))
            with suppress(UserError):  # after so many failures in a row the server is thought to be down
                ask(server, tmp_path / "j", requests, settings, timeout=1.0)
            assert limit is None or spent(tmp_path / "j", requests).tokens <= limit
            with Journal(tmp_path / "j") as journal:  # as `generator.again=[malformed]` does
                journal.plan([request.entry for request in requests], scope_of(requests), ["malformed"])
    with Journal(tmp_path / "j") as journal:
        outcomes = [journal.outcomes(request.id) for request in requests]
    assert all(found.count("answered") == 1 and found[-1] == "answered" for found in outcomes)
    assert sum(map(len, outcomes)) == server.requests  # each that was sent is on record
    assert "sent" not in {outcome for found in outcomes for outcome in found}
