"""What another process said last, and how it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embfit.errors import DEVICE_MEMORY
from embfit.run.child_process import ChildProcess

RELIEF = "lower trainer.devices"


def ended(folder: Path, script: str, words: str = "") -> ChildProcess:
    """Return a process that has run a script, and what it left behind."""
    path = folder / "output.txt"
    path.write_text(words)
    companion = ChildProcess(subprocess.Popen([sys.executable, "-c", script]), path)
    companion.process.wait()
    return companion


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, f"it was killed by signal 9 (SIGKILL), as by a machine without memory; {RELIEF}"),
        (signal.SIGSEGV, "it was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_signal_is_named_with_what_to_do(number: signal.Signals, expected: str, tmp_path: Path) -> None:
    killed = ended(tmp_path, f"import os; os.kill(os.getpid(), {number.value})", "loading\n")
    assert killed.failed()
    assert killed.error_summary(RELIEF) == f"{expected} ({tmp_path / 'output.txt'})"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "it said nothing"),
        ("Traceback\n  line\nValueError: why\n", "ValueError: why"),
        ("Traceback\n[rank1]: embfit.errors.UserError: no such device\n", "no such device"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried\n", DEVICE_MEMORY),
    ],
)
def test_the_last_line_says_why(words: str, expected: str, tmp_path: Path) -> None:
    assert ended(tmp_path, "exit(1)", words).error_summary(RELIEF) == f"{expected} ({tmp_path / 'output.txt'})"


def test_a_process_that_runs_has_not_failed_until_it_is_ended(tmp_path: Path) -> None:
    running = ChildProcess.start("http.server", ["0"], tmp_path / "output.txt")
    assert not running.has_ended
    assert not running.failed(0.0)
    running.end()
    assert running.has_ended
    assert running.process.returncode == -signal.SIGKILL
