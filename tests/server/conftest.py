"""Fixtures: a server of a small bundle, on a thread, asked over a real socket."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from embfit.bundle import BundleVersions
from embfit.server import ServerSettings
from embfit.server.lifecycle import Server, listen, make_server, run, url
from embfit.server.service import Service
from tests.bundle.conftest import _published, make, versions

__all__ = ["_published", "make", "versions"]  # fixtures


@dataclass(frozen=True)
class Served:
    """A server that answers, and a client of it."""

    service: Service
    server: Server
    client: httpx2.Client
    address: tuple[str, int]

    def post(self, path: str, **body: object) -> httpx2.Response:
        return self.client.post(path, json=body)


@contextmanager
def serving(versions: BundleVersions, **settings: object) -> Iterator[Served]:
    """Serve a bundle while the block runs; keyword arguments are settings of the server."""
    chosen = ServerSettings(**{"port": 0, "follow_seconds": 0.02} | settings)  # type: ignore[arg-type]
    service = Service(chosen, versions, "cpu")
    listening = listen(chosen)
    server = make_server(service, listening)
    address = listening.getsockname()[:2]
    thread = threading.Thread(target=lambda: run(service, server, listening))
    with httpx2.Client(base_url=url(listening), timeout=30) as client:
        thread.start()
        try:
            yield Served(service, server, client, address)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def served(_published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a bundle that no test changes."""
    folder = tmp_path_factory.mktemp("served") / "bundles"
    shutil.copytree(_published, folder, symlinks=True)
    with serving(BundleVersions(folder, "docs")) as running:
        yield running


def until(true: object, seconds: float = 20) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
