"""Hundreds of swaps under load leave a server's memory, descriptors and threads where they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from embfit.bundle import BundleVersions
from embfit.model import Encoder
from tests.bundle.conftest import CHANGED, Make
from tests.server.conftest import Served, serving, until
from tests.server.test_live_version import QUERIES, other
from tests.server.test_server import together

SWAPS, PARTS = 240, 4


@pytest.fixture
def running(versions: BundleVersions, make: Make, tiny_encoder: Encoder) -> Iterator[Served]:
    make(encoder=other(tiny_encoder), texts=CHANGED)
    with serving(versions) as served:
        yield served


@contextmanager
def load(served: Served, clients: int = 4) -> Iterator[None]:
    """Let clients ask while the block runs."""
    over = threading.Event()

    def ask(number: int) -> None:
        while not over.is_set():
            assert served.post("/v1/search", query=QUERIES[number], k=3).status_code == 200

    threads = [together(lambda number=number: ask(number)) for number in range(clients)]
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def swap(served: Served, versions: BundleVersions) -> None:
    number = 3 - served.service.live.bundle.manifest.version
    versions.point({"champion": number})
    until(lambda: served.service.live.bundle.manifest.version == number)


@pytest.mark.slow  # two hundred versions are opened
def test_memory_stays_level_over_swaps(running: Served, versions: BundleVersions) -> None:
    process = psutil.Process()
    seen = []
    with load(running):
        for number in range(SWAPS):
            swap(running, versions)
            if (number + 1) % (SWAPS // PARTS) == 0:
                seen.append((process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()))
    memory, descriptors, threads = np.array(seen).T
    assert memory[-1] - memory[0] < 0.05 * SWAPS  # MB
    assert memory[-1] - memory[-2] < 6
    assert np.ptp(descriptors) <= 6  # a version that is being opened has some
    assert np.ptp(threads) <= 2
