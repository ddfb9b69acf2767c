"""A worker: one of several processes that answer at the same address, each with its own model.

`python -m embfit.server.worker JOB` is how `embfit.server.workers` starts one.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from embfit.bundle import BundleVersions
from embfit.run.console import listen
from embfit.server.lifecycle import make_server, run
from embfit.server.service import Service
from embfit.server.settings import ServerSettings
from embfit.server.workers import WorkerJob
from embfit.store import Store


def main(arguments: list[str]) -> None:
    """Answer requests until this process receives a signal to stop, or its parent process ends."""
    job = WorkerJob.read(arguments[0])
    listen()
    folder, name = job.bundle
    settings = ServerSettings(**job.settings)
    listening = socket.socket(fileno=job.listening)
    service = Service(settings, BundleVersions(Path(folder), name), job.device, Store(*job.store))

    def answers() -> None:
        os.write(job.answering, f"{service.live.label}\n".encode())

    async def beat() -> None:
        if service.batcher.alive:
            with suppress(OSError):  # the parent has ended, so this process ends soon too
                os.write(job.answering, b"\n")

    threading.Thread(target=_stop_when_left_alone, daemon=True).start()
    run(service, make_server(service, listening, answers, beat), listening)


def _stop_when_left_alone() -> None:
    """Stop when stdin closes, which happens when the parent process ends."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
