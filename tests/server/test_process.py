"""`embfit serve` as a process: it starts, answers, follows promotions under load, and ends well when it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from embfit.app import main
from embfit.bundle import BundleVersions, Gates
from embfit.bundle.promotion import promote, rollback
from embfit.model import Encoder
from tests.bundle.conftest import CHANGED, Make
from tests.server.conftest import until
from tests.server.test_live_version import QUERIES, expected, other
from tests.server.test_server import together

ANSWERS = re.compile(r"docs@\d+ answers at (\S+)")


def started(versions: BundleVersions, folder: Path, *more: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server, and return it with its address."""
    log = folder / "log.txt"
    before = len(ANSWERS.findall(log.read_text())) if log.is_file() else 0
    command = ["serve", "bundle.name=docs", f"bundle.dir={versions.dir}", "server.port=0", "server.follow_seconds=0.05"]
    process = subprocess.Popen(
        [sys.executable, "-m", "embfit", *command, *more, "trainer=cpu", f"run.dir={folder}"],
        env=os.environ | {"XDG_CONFIG_HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def address() -> list[str]:
        assert process.poll() is None, log.read_text()
        return ANSWERS.findall(log.read_text())[before:] if log.is_file() else []

    until(address, 120)
    return process, address()[-1]


def test_from_start_to_end(versions: BundleVersions, make: Make, tiny_encoder: Encoder, tmp_path: Path) -> None:
    make(encoder=other(tiny_encoder), texts=CHANGED)
    known = expected(versions)
    process, address = started(versions, tmp_path / "run")
    seen = {"docs@1": 0, "docs@2": 0}
    wrong: list[object] = []
    stopping = threading.Event()

    def ask(first: int) -> None:
        with httpx2.Client(base_url=address, timeout=60) as client:
            for place in range(first, 1_000_000):
                query = QUERIES[place % len(QUERIES)]
                try:
                    answer = client.post("/v1/search", json={"query": query, "k": 3})
                except httpx2.HTTPError as error:
                    if not stopping.is_set():
                        wrong.append(error)
                    return
                label = answer.headers["x-embfit-bundle"]
                found = [(hit["id"], hit["score"]) for hit in answer.json()["data"][0]["documents"]]
                if answer.status_code != 200 or found != known[label][query]:
                    wrong.append((label, query, answer.text))
                seen[label] += 1

    threads = [together(lambda first=first: ask(first)) for first in range(3)]
    try:
        until(lambda: seen["docs@1"] > 20)
        assert promote(versions, 2, Gates(loss=None), force=True).promoted
        until(lambda: seen["docs@2"] > 20)
        assert rollback(versions) == (1, 2)
        before = seen["docs@1"]
        until(lambda: seen["docs@1"] > before + 20)
    finally:
        stopping.set()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        for thread in threads:
            thread.join()
    assert (code, wrong) == (0, [])
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"

    again, address = started(versions, tmp_path / "run")  # in the same folder
    body = b'{"query": "blood", "k": 1}'
    head = (
        f"POST /v1/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=60) as client:
        client.sendall(head.encode() + body[:9])
        assert httpx2.get(f"{address}/health").status_code == 200  # so the head, sent before, has arrived
        again.send_signal(signal.SIGINT)
        until(lambda: refuses(address))
        client.sendall(body[9:])
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")
    assert again.wait(60) == 0


def refuses(address: str) -> bool:
    """Whether a server accepts no further connections."""
    try:
        httpx2.get(f"{address}/health")
    except httpx2.HTTPError:
        return True
    return False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["bundle.name=nothing"], "has no bundle 'nothing'"),
        (["bundle.name=docs", "server.api_key_env=NO_SUCH_KEY"], "NO_SUCH_KEY: the environment variable is not set"),
        ([], "bundle.name: is not set; name the bundle"),
        (["bundle.name=docs", "server.queue=5"], "server.queue=5 has no room for the 2048 texts of one request"),
        (["bundle.name=docs", "server.serve=newest"], "server.serve"),
    ],
)
def test_what_cannot_be_served(
    versions: BundleVersions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    common = ["trainer=cpu", "server.port=0", f"bundle.dir={versions.dir}", f"run.dir={tmp_path / 'run'}"]
    assert main(["serve", *common, *given]) in (1, 2)
    assert said in " ".join("".join(capsys.readouterr()).split())
