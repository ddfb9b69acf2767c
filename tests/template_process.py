"""Processes that are forked from one that has imported what they need: a start with PyTorch and Lightning takes 7 s.

What such a process does is the same as of one that is started anew, but for its first line: a test of the start itself
starts it as embfit does.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NoReturn


class TemplateProcess:
    """A process that forks others, with the modules that are imported when it is made.

    It is to be made before anything is computed, since threads are not there after a fork. It and what it has forked
    end with the process that made it.
    """

    def __init__(self) -> None:
        threads = [thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")]
        assert len(threads) - threads.count("jemalloc_bg_thd") == 1, threads  # Arrow's allocator sees to its own
        self._there, here = Pipe()
        if not os.fork():
            self._there.close()
            _serve(here)
        here.close()

    def start(self, module: str, arguments: Sequence[str], words: Path) -> ForkedProcess:
        """Call the function `main` of a module in a process with this one's environment.

        Args:
            module: its name.
            arguments: the list that `main` is given.
            words: the file for what the process says.
        """
        return ForkedProcess(self, self.ask((module, list(arguments), words, dict(os.environ), Path.cwd())))

    def ask(self, request: object) -> int:
        """Return what the template answers."""
        self._there.send(request)
        found: int = self._there.recv()
        return found


class ForkedProcess:
    """A process of a template, with what embfit asks of a `subprocess.Popen`."""

    def __init__(self, template: TemplateProcess, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._template = template

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self._template.ask(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit code."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _serve(here: Connection) -> NoReturn:
    """Fork for every request, and answer with the process's number; for such a number, with its exit code."""
    running: set[int] = set()
    with suppress(EOFError):  # the process that asks has ended
        while True:
            request = here.recv()
            if isinstance(request, int):
                ended, status = os.waitpid(request, os.WNOHANG)
                running -= {ended}
                here.send(os.waitstatus_to_exitcode(status) if ended else None)
            elif child := os.fork():
                running.add(child)
                here.send(child)
            else:
                here.close()
                _become(*request)
    for child in running:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


def _become(module: str, arguments: list[str], words: Path, environment: dict[str, str], folder: Path) -> NoReturn:
    """Do in this process what a start of the module would, and end it."""
    code = 1
    try:
        os.setsid()
        output = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, sys.stdout.fileno())
        os.dup2(output, sys.stderr.fileno())
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        importlib.import_module(module).main(arguments)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
