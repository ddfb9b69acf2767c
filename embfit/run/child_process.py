"""Starts another process of embfit on this machine, ends it, and reports how it ended."""

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

MARKS = r"^(\[rank\d+\]: )?(embfit\.errors\.\w+: )?"  # PyTorch's rank and the exception's class


def module_path() -> str:
    """Return the PYTHONPATH with which another process can import the same modules as this one, such as a pack's."""
    return os.pathsep.join(path for path in sys.path if path)


@dataclass(frozen=True)
class ChildProcess:
    """Another process of embfit.

    Args:
        process: Python's handle of the process.
        output: the file of its stdout and stderr.
    """

    process: subprocess.Popen[bytes]
    output: Path

    @classmethod
    def start(
        cls,
        module: str,
        arguments: Sequence[str],
        output: Path,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
    ) -> Self:
        """Start a module of embfit in a process that can import the same modules as this one.

        Args:
            module: the module's name.
            arguments: the arguments of its command line.
            output: the file for its stdout and stderr.
            environment: environment variables in addition to those of this process.
            pass_fds: file descriptors that it inherits under the same numbers.
            stdin: its stdin, as for `subprocess.Popen`; None is the stdin of this process.
        """
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=file,
                stderr=file,
                stdin=stdin,
                env={**os.environ, "PYTHONPATH": module_path(), **(environment or {})},
                pass_fds=pass_fds,
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends the other
            )
        return cls(process, output)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def failed(self, seconds: float | None = None) -> bool:
        """Wait up to a number of seconds for its end; return whether it failed. A running process has not failed."""
        try:
            return self.process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            return False

    def error_summary(self, memory_remedy: str) -> str:
        """Return why it ended, and where to read more.

        Args:
            memory_remedy: what to do if the machine has too little memory for it.
        """
        return f"{self._reason(memory_remedy)} ({self.output})"

    def end(self, grace: float = 0.0) -> None:
        """End the process; kill it if it has not ended after a number of seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.process.kill()
        self.process.wait()

    def _reason(self, memory_remedy: str) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            killed = f"it was killed by signal {-code} ({signal.Signals(-code).name})"
            return f"{killed}, as by a machine without memory; {memory_remedy}" if -code == signal.SIGKILL else killed
        lines = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if not lines:
            return "it said nothing"
        return DEVICE_MEMORY if "OutOfMemoryError" in lines[-1] else re.sub(MARKS, "", lines[-1])
