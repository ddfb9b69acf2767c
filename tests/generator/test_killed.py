"""Processes that are killed, and processes that share a journal: nothing answered is asked for again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from random import Random

import pytest

from embfit.generator.asking import ask_all
from embfit.generator.asking_settings import AskingSettings
from embfit.generator.budget import Budget
from embfit.generator.journal import Journal
from embfit.generator.plan import scope_of
from tests.generator.conftest import new_requests
from tests.generator.model_server import Answer, ModelServer, queries
from tests.generator.test_asking import spent, states

CONCURRENCY = 4


def work(url: str, journal: Path, count: int, budget: int | None) -> None:
    """Ask for the queries of some documents, as a process of its own."""
    requests = new_requests(count)
    scope = scope_of(requests)
    settings = AskingSettings("tiny", concurrency=CONCURRENCY, budget=Budget(requests=budget))
    with Journal(journal) as opened:
        opened.plan([request.entry for request in requests], scope)
        waiting = [request for request in requests if opened.answer(request.entry).state in ("planned", "sent")]
        ask_all(f"{url}/chat/completions", None, 30.0, opened, settings, scope, waiting)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """What starts processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.generator.test_killed"])
    return context


def slow(*_: object) -> Answer:
    time.sleep(0.02)
    return queries("a", "b")


def killed_at(moments: list[float], processes: ForkServerContext, journal: Path) -> None:
    """Start and kill a process after so many seconds of work each, then let one finish."""
    count = 150
    requests = new_requests(count)
    with ModelServer(slow) as server:
        for moment in moments:
            before = server.requests
            process = start(processes, server, journal, count)
            while server.requests == before and process.is_alive():
                time.sleep(0.005)
            time.sleep(moment)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        last = start(processes, server, journal, count)
        last.join()
        assert last.exitcode == 0
    with Journal(journal) as opened:
        assert set(states(opened, requests).values()) == {"answered"}
        again = sum(len(opened.outcomes(request.id)) - 1 for request in requests)
    assert server.requests <= count + len(moments) * CONCURRENCY  # those under way when it was killed
    assert spent(journal, requests).requests >= server.requests  # what was under way stays charged
    assert again <= len(moments) * CONCURRENCY


def start(
    processes: ForkServerContext, server: ModelServer, journal: Path, count: int, budget: int | None = None
) -> ForkServerProcess:
    process = processes.Process(target=work, args=(server.url, journal, count, budget))
    process.start()
    return process


def test_killed_at_random_moments_it_goes_on(tmp_path: Path, processes: ForkServerContext) -> None:
    random = Random(0)
    killed_at([random.uniform(0, 0.15) for _ in range(4)], processes, tmp_path / "j")


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_goes_on(tmp_path: Path, processes: ForkServerContext) -> None:
    random = Random(1)
    killed_at([random.uniform(0, 0.2) for _ in range(20)], processes, tmp_path / "j")


def test_two_processes_share_the_work_and_the_budget(tmp_path: Path, processes: ForkServerContext) -> None:
    count, budget = 80, 50
    with ModelServer(slow) as server:
        both = [start(processes, server, tmp_path / "j", count, budget) for _ in range(2)]
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
        assert server.requests == budget
        both = [start(processes, server, tmp_path / "j", count) for _ in range(2)]
        for process in both:
            process.join()
    assert set(server.asked.values()) == {1}
    assert server.requests == count


def test_what_another_process_had_under_way_is_taken_over(tmp_path: Path, processes: ForkServerContext) -> None:
    """The second process waits for the first one's answers, and asks for them itself once that one is killed."""
    with ModelServer(lambda _, before: time.sleep(60 if before == 0 else 0) or queries("a")) as server:
        first = start(processes, server, tmp_path / "j", 3)
        while server.requests < 3 and first.is_alive():
            time.sleep(0.01)
        second = start(processes, server, tmp_path / "j", 3)
        time.sleep(0.5)
        assert server.requests == 3
        os.kill(first.pid, signal.SIGKILL)
        second.join(30)
        assert second.exitcode == 0
        assert set(server.asked.values()) == {2}
