"""The guide's path as a user walks it: a folder of Markdown, two commands, a changed folder, a swap, a rollback."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.conftest import until
from tests.server.test_server import together

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "refresh.md").read_text(encoding="utf-8")
PAGES = ("style", "loss", "launcher", "logger", "sharing", "report")
NEW = (
    "# Penguins\n\nPenguins cannot fly. They swim with their wings, and their feathers keep the cold water out of the "
    "skin.\n"
)
QUESTION = "which birds swim with their wings"
LIMIT = 300  # seconds of one command


def commands() -> list[list[str]]:
    """Return the commands of the guide's first two blocks: refresh, serve; refresh, rollback."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)[:2]
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


class Walk:
    """A user's terminal in one folder, with the seconds that each step took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def type(self, step: str, words: list[str], *more: str) -> str:
        """Run a command; return what it printed."""
        with self.timed(step):
            done = subprocess.run(
                [sys.executable, "-m", *words, *more],
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def timed(self, step: str) -> Any:
        started = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - started, 1)

    def wait(self, step: str, true: Callable[[], object]) -> None:
        with self.timed(step):
            until(true, LIMIT)


def verdict(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return found


@pytest.mark.slow  # trains MiniLM twice
def test_from_a_folder_of_markdown_to_a_swap_and_back(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    handbook = tmp_path / "handbook"
    handbook.mkdir()
    for page in PAGES:
        shutil.copy(DOCS / f"{page}.md", handbook)
    first, serve, again, back = commands()
    assert first == again
    walk = Walk(tmp_path)
    floor = "bundle.gates.floor=0.05"  # held to generated queries, since nobody has judged any
    told = walk.type("first refresh", first, floor, "run.dir=one", "trainer=cpu")
    assert verdict(tmp_path / "one")["decision"] == "promoted"
    assert re.search(r"passed  floor: ndcg@10 of \d+ generated queries 0\.\d{4}, limit 0\.05", told)

    log = tmp_path / "server" / "log.txt"
    words = [sys.executable, "-m", *serve, "server.port=0", "run.dir=server", "trainer=cpu"]
    server = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = r"docs@1 answers at (\S+)"
    walk.wait("start of the server", lambda: log.is_file() and re.search(address, log.read_text()))
    url = re.findall(address, log.read_text())[0]
    stopping = threading.Event()
    answers: Counter[tuple[str, bool]] = Counter()
    wrong: list[str] = []

    def ask() -> None:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while not stopping.is_set():
                answer = client.post("/v1/search", json={"query": QUESTION, "k": 1})
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    return
                text = answer.json()["data"][0]["documents"][0]["text"]
                answers[answer.headers["x-embfit-bundle"], "Penguins" in text] += 1
                time.sleep(0.02)

    loads = [together(ask) for _ in range(2)]
    try:
        until(lambda: answers["docs@1", False] > 10)
        (handbook / "penguins.md").write_text(NEW)
        (handbook / "style.md").write_text((handbook / "style.md").read_text() + "\n\nA last word about styles.\n")
        told = walk.type("second refresh", again, floor, "run.dir=two", "trainer=cpu")
        found = verdict(tmp_path / "two")
        assert (found["decision"], found["champion_before"]) == ("promoted", 1)
        assert found["added"] >= 2
        now = f"docs@{found['champion']}"
        walk.wait("swap", lambda: answers[now, True] > 10)
        walk.type("rollback", back)
        before = answers["docs@1", False]
        walk.wait("swap back", lambda: answers["docs@1", False] > before + 10)
    finally:
        stopping.set()
        for thread in loads:
            thread.join()
        server.terminate()
        code = server.wait(60)
    assert (code, wrong) == (0, [])
    assert answers.keys() == {("docs@1", False), (now, True)}  # every answer is one version's
    for step, seconds in walk.seconds.items():
        record_property(step, seconds)
    print(walk.seconds, dict(answers), found["model"])
