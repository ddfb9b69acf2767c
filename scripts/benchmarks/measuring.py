"""What several benchmarks measure with: runs made once, result files, anonymous memory, paired differences, vectors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a result file; none where there is no file."""
    if path.is_file():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def run_once(folder: Path, overrides: Sequence[str]) -> None:
    """Make a run of embfit in a folder, unless a finished one of the same command line is there.

    Args:
        folder: of the run; an unfinished run in it is resumed.
        overrides: the command line, without `run.dir`.

    Raises:
        SystemExit: a finished run of another command line is there.
        CalledProcessError: the run failed.
    """
    from embfit.run.record import read_state

    if read_state(folder) == "done":
        made = json.loads((folder / "versions.json").read_text(encoding="utf-8"))["overrides"]
        if [override for override in made if not override.startswith("run.dir=")] != [*overrides]:
            raise SystemExit(f"{folder} holds a run with other overrides; remove it, or choose another --out")
        return
    command = [sys.executable, "-m", "embfit", *overrides, f"run.dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def mean_and_interval(differences: np.ndarray) -> str:
    """Return `+0.0061 (+0.0023 to +0.0102)`: the mean of paired differences, and its 95 % interval by bootstrap."""
    from embfit.evaluator.significance import bootstrap_interval
    from embfit.report.formatting import interval, signed

    return f"{signed(float(differences.mean()))} ({interval(bootstrap_interval(differences, 10_000, 0))})"


def named_folder(text: str) -> tuple[str, Path]:
    """Parse an argument of the form NAME=DIR."""
    name, _, folder = text.partition("=")
    return name, Path(folder)


def numbers(text: str) -> list[int]:
    """Parse an argument of the form 0,1,2."""
    return [int(number) for number in text.split(",")]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of unit length in the same directions, as float32."""
    shortened: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32, copy=False)
    return shortened


class AnonymousMemory:
    """Samples the anonymous memory of this process (Linux): what it holds itself, without pages of mapped files.

    Attributes:
        before: bytes when entered.
        most: bytes at most, since then.
    """

    def __init__(self) -> None:
        self.before = self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> AnonymousMemory:
        self.before = self.most = _anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, _anonymous_bytes())


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/status has no RssAnon; this script needs Linux")
