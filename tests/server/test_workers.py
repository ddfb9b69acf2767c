"""Several processes at one address: who starts, replaces and stops them, and that they are one server to a client."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from embfit.bundle import BundleVersions
from embfit.errors import UserError
from embfit.model import Encoder
from embfit.server import ServerSettings, lifecycle, worker, workers
from embfit.server.lifecycle import listen
from embfit.server.workers import WorkerJob, Workers
from embfit.store import Store
from tests.bundle.conftest import CHANGED, Make
from tests.server.conftest import until
from tests.server.test_live_version import other
from tests.server.test_process import started
from tests.server.test_server import together


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that load nothing, and are replaced at once."""
    monkeypatch.setattr(workers, "MODULE", "tests.server.small_worker")
    monkeypatch.setattr(workers, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(workers, "LOOKED_EVERY", 0.05)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listen(ServerSettings(port=0)) as taken:
        yield taken


def make(listening: socket.socket, folder: Path, name: str, count: int = 2) -> Workers:
    settings = ServerSettings(port=0, workers=count, stop_seconds=5.0, search_threads=count)
    store = Store(folder / "store")
    return Workers(settings, BundleVersions(folder, name), ["cpu"], store, listening, folder)


def ask(listening: socket.socket) -> tuple[int, str]:
    """Return the process that takes a connection, and its folder of metrics."""
    with socket.create_connection(listening.getsockname()[:2], timeout=10) as connection:
        process, folder = connection.recv(1000).decode().split()
    return int(process), folder


def pids(folder: Path) -> list[int]:
    file = folder / "started"
    return [int(line) for line in file.read_text().splitlines()] if file.is_file() else []


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("small")
def test_a_worker_that_ends_is_replaced_and_all_stop_together(
    listening: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = make(listening, tmp_path, "docs")
    seen: list[tuple[int, str]] = []

    def watch() -> None:
        until(lambda: "docs@1 answers at http://127.0.0.1" in caplog.text and "by 2 workers" in caplog.text)
        seen.append(ask(listening))
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        until(lambda: caplog.text.count("answers (process") == 3)
        seen.append(ask(listening))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = together(watch)
    made.run()
    thread.join()
    first, second, third = pids(tmp_path)
    assert seen[0][0] in (first, second)
    assert seen[1][0] in (second, third)
    assert seen[0][1] == seen[1][1] != ""
    assert re.search(r"worker \d has ended: it was killed by signal 9 \(SIGKILL\)", caplog.text)
    assert all(map(gone, (first, second, third)))
    assert not Path(seen[0][1]).exists()


@pytest.mark.usefixtures("small")
def test_a_worker_that_hangs_is_replaced(
    listening: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(workers, "SILENT", 2.0)

    def watch() -> None:
        until(lambda: "by 2 workers" in caplog.text)
        os.kill(pids(tmp_path)[0], signal.SIGSTOP)
        until(lambda: caplog.text.count("answers (process") == 3)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = together(watch)
    make(listening, tmp_path, "docs").run()
    thread.join()
    assert len(pids(tmp_path)) == 3  # the one that gave signs of life was left alone
    assert re.search(r"worker \d has ended: it gave no sign of life for 2 s; another takes its place", caplog.text)
    assert all(map(gone, pids(tmp_path)))


@pytest.mark.usefixtures("small")
def test_workers_that_cannot_start_end_the_server(listening: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"worker \d cannot serve: broken cannot be opened \(.*worker-\d\.txt\)"):
        make(listening, tmp_path, "broken").run()
    assert all(map(gone, pids(tmp_path)))


@pytest.mark.usefixtures("small")
def test_a_successor_that_cannot_start_is_tried_again_later_and_later(
    listening: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def watch() -> None:
        until(lambda: "by 2 workers" in caplog.text)
        os.kill(pids(tmp_path)[1], signal.SIGKILL)
        until(lambda: len(pids(tmp_path)) == 5)
        assert ask(listening)[0] == pids(tmp_path)[0]  # the other one answers all the while
        os.kill(os.getpid(), signal.SIGINT)

    thread = together(watch)
    started = time.monotonic()
    make(listening, tmp_path, "later").run()
    thread.join()
    assert time.monotonic() - started > 0.05 + 0.1 + 0.2
    assert caplog.text.count("later cannot be opened") >= 2
    assert all(map(gone, pids(tmp_path)))


def test_a_job_is_read_as_it_was_written() -> None:
    job = WorkerJob({"port": 1, "host": "::1"}, ("bundles", "docs"), "cuda:1", ("store", True, "s3://team/store"), 4, 5)
    found = WorkerJob.read(job.written())
    assert (tuple(found.bundle), tuple(found.store)) == (job.bundle, job.store)
    assert (found.settings, found.device, found.listening, found.answering) == (job.settings, "cuda:1", 4, 5)


def test_a_worker_says_its_version_and_then_gives_signs_of_life(
    versions: BundleVersions, listening: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[lifecycle.Server] = []

    def make_server(*given: Any) -> lifecycle.Server:
        made.append(lifecycle.make_server(*given))
        return made[0]

    monkeypatch.setattr(lifecycle, "BEAT_SECONDS", 0)
    monkeypatch.setattr(worker, "make_server", make_server)
    monkeypatch.setattr(worker, "listen", lambda: None)
    monkeypatch.setattr(worker, "_stop_when_left_alone", lambda: None)
    answers, answering = os.pipe()
    bundle, store = (str(versions.dir), versions.name), (str(tmp_path / "store"), True, None)
    job = WorkerJob(asdict(ServerSettings(port=0)), bundle, "cpu", store, os.dup(listening.fileno()), answering)
    thread = together(lambda: worker.main([job.written()]))
    try:
        until(lambda: select.select([answers], [], [], 0)[0])
        assert os.read(answers, 7) == b"docs@1\n"
        until(lambda: select.select([answers], [], [], 0)[0])
        assert os.read(answers, 1) == b"\n"
    finally:
        made[0].should_exit = True
        thread.join()
        os.close(answers)
        os.close(answering)


def bundles_of(text: str) -> dict[int, str]:
    """Return the version that each process says it answers with."""
    found = re.findall(r"^embfit_bundle_info\{(.*)\} 1\.0$", text, re.MULTILINE)
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', one)) for one in found]
    return {int(one["pid"]): one["version"] for one in labels}


@pytest.mark.slow  # starts three processes with PyTorch, which is what is tested
def test_two_workers_are_one_server(
    versions: BundleVersions, make: Make, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    make(encoder=other(tiny_encoder), texts=CHANGED)
    process, address = started(versions, tmp_path / "run", "server.workers=2")

    def metrics() -> str:
        return httpx2.get(f"{address}/metrics", timeout=30).text

    def answer(count: int) -> list[str]:
        """Ask over new connections, which any worker may take."""
        found = [httpx2.post(f"{address}/v1/search", json={"query": "blood", "k": 1}) for _ in range(count)]
        assert {one.status_code for one in found} == {200}
        return [one.headers["x-embfit-bundle"] for one in found]

    try:
        first = bundles_of(metrics())
        assert set(first.values()) == {"1"}
        assert len(first) == 2
        assert set(answer(20)) == {"docs@1"}
        for _ in range(4):  # whichever is asked
            assert 'embfit_requests_total{code="200",route="/v1/search"} 20.0' in metrics()
        versions.point({"champion": 2})
        until(lambda: bundles_of(metrics()) == dict.fromkeys(first, "2"))
        assert set(answer(5)) == {"docs@2"}
        killed, kept = first
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in (now := bundles_of(metrics())) and len(now) == 2, 60)
        assert kept in bundles_of(metrics())
        assert 'embfit_requests_total{code="200",route="/v1/search"} 25.0' in metrics()  # what it counted stays
        both = bundles_of(metrics())
        load = threading.Event()
        answered = []

        def ask() -> None:
            while not load.is_set():
                answered.append(httpx2.post(f"{address}/v1/search", json={"query": "blood"}, timeout=30).status_code)

        thread = together(ask)
        until(lambda: len(answered) > 5)
        load.set()
        thread.join()
        assert set(answered) == {200}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    until(lambda: all(map(gone, both)))

    again, address = started(versions, tmp_path / "run", "server.workers=2")
    both = bundles_of(metrics())
    again.kill()
    again.wait()
    until(lambda: all(map(gone, both)))  # nobody is left alone
