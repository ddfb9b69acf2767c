"""A process that this one starts beside itself, on the same machine, and ends: what it said last, and how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from embfit.errors import DEVICE_MEMORY

MARKS = r"^(\[rank\d+\]: )?(embfit\.errors\.\w+: )?"  # before an error's words: PyTorch's, and what needs no name


@dataclass(frozen=True)
class ChildProcess:
    """Another process of embfit.

    Args:
        process: as it was started.
        words: the file with what it says.
    """

    process: subprocess.Popen[bytes]
    words: Path

    @classmethod
    def start(
        cls,
        module: str,
        arguments: Sequence[str],
        words: Path,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
    ) -> Self:
        """Start a module of embfit in a process that finds the modules this one does, a checkout's or a pack's perhaps.

        Args:
            module: its name.
            arguments: of its command line.
            words: the file for what it says.
            environment: variables that it has besides those of this process.
            pass_fds: descriptors that it inherits, by the same numbers.
            stdin: where it reads from, as `subprocess.Popen` takes it; None is where this process does.
        """
        path = os.pathsep.join(place for place in sys.path if place)
        with words.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=output,
                stderr=output,
                stdin=stdin,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
                pass_fds=pass_fds,
                start_new_session=True,  # Ctrl-C is for this process, which ends the other
            )
        return cls(process, words)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def failed(self, seconds: float | None = None) -> bool:
        """Say whether it ended with an error, after waiting for that; it has not if it still runs after so long."""
        try:
            return self.process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            return False

    def error_summary(self, relief: str) -> str:
        """Say why it ended, and where to read more.

        Args:
            relief: what to do where the machine has too little memory for it.
        """
        return f"{self._reason(relief)} ({self.words})"

    def end(self, grace: float = 0.0) -> None:
        """End it, by force if it has not ended by itself in so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.process.kill()
        self.process.wait()

    def _reason(self, relief: str) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            killed = f"it was killed by signal {-code} ({signal.Signals(-code).name})"
            return f"{killed}, as by a machine without memory; {relief}" if -code == signal.SIGKILL else killed
        lines = self.words.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if not lines:
            return "it said nothing"
        return DEVICE_MEMORY if "OutOfMemoryError" in lines[-1] else re.sub(MARKS, "", lines[-1])
