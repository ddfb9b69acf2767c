"""A worker that loads nothing: it answers or fails as the bundle's name says, for tests of what looks after it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Answer each connection with this process's number, until SIGTERM."""
    job = json.loads(arguments[0])  # as `WorkerJob` writes it; to import that would take seconds
    folder, name = job["bundle"]
    started = Path(folder) / "started"
    with started.open("a") as file:
        file.write(f"{os.getpid()}\n")
    count = len(started.read_text().splitlines())
    if name == "broken" or (name == "later" and count > job["settings"]["search_threads"]):
        raise SystemExit(f"{name} cannot be opened")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    listening = socket.socket(fileno=job["listening"])
    listening.settimeout(0.1)
    os.write(job["answering"], f"{name}@1\n".encode())
    while True:
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            os.write(job["answering"], b"\n")
            continue
        with connection:
            connection.sendall(f"{os.getpid()} {os.environ['PROMETHEUS_MULTIPROC_DIR']}".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
