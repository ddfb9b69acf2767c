"""Several processes that answer at one address: each has its own model, and one that ends or hangs is replaced.

The parent process binds the address and computes nothing. Its workers inherit the socket, so a free worker accepts
each connection, and a worker that ends loses only the connections that it had accepted.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embfit.bundle import BundleVersions
from embfit.errors import UserError
from embfit.run.child_process import ChildProcess
from embfit.server.lifecycle import url
from embfit.server.metrics import SHARED, forget_process
from embfit.server.settings import ServerSettings
from embfit.store import Store

log = logging.getLogger(__name__)

MODULE = "embfit.server.worker"
THREADS = "OMP_NUM_THREADS"
LOOKED_EVERY = 0.5  # seconds between checks for a signal to stop
FIRST_DELAY, LAST_DELAY = 1.0, 60.0  # seconds before a worker is replaced: doubled while the new ones do not answer
SILENT = 60.0  # seconds without a heartbeat, after which a worker that answered before is killed and replaced
GRACE = 5.0  # seconds beyond server.stop_seconds, after which a worker that does not end is killed


@dataclass(frozen=True)
class WorkerJob:
    """Everything that a worker needs, as JSON values.

    Args:
        settings: the values of `ServerSettings`.
        bundle: the bundle's folder and name.
        device: the device of its model.
        store: the store's folder, whether it is used, and the address of its shared folder.
        listening: the file descriptor of the socket.
        answering: the file descriptor to which it writes its version's label once it answers, and then an empty line
            every few seconds, as a heartbeat.
    """

    settings: Mapping[str, Any]
    bundle: tuple[str, str]
    device: str
    store: tuple[str, bool, str | None]
    listening: int
    answering: int = -1

    def written(self) -> str:
        """Return the job as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> WorkerJob:
        """Read a job from an argument of a command line."""
        return cls(**json.loads(text))


@dataclass(eq=False)
class _Worker:
    """A worker process that was started.

    Args:
        number: its place among the workers; a replacement has the same number.
        child: the process.
        answers: the reading end of the pipe of its heartbeats, which closes when the process ends.
        delay: how many seconds its replacement waits if it ends before it has answered.
        label: the label of its first version; empty until it answers.
        heard: the time of its last heartbeat (`time.monotonic`).
    """

    number: int
    child: ChildProcess
    answers: int
    delay: float
    label: str = ""
    heard: float = 0.0


class Workers:
    """The workers of one server.

    Args:
        settings: the server's settings.
        versions: the versions of the bundle.
        devices: are assigned to the workers in turn.
        store: keeps converted models.
        listening: the bound socket.
        folder: gets a log file of each worker.
    """

    def __init__(
        self,
        settings: ServerSettings,
        versions: BundleVersions,
        devices: Sequence[str],
        store: Store,
        listening: socket.socket,
        folder: Path,
    ) -> None:
        self.settings = settings
        self.versions = versions
        self.devices = devices
        self.store = store
        self.listening = listening
        self.folder = folder
        self._running: list[_Worker] = []
        self._due: list[tuple[float, int, float]] = []  # when, which number, and the delay of the one after
        self._looked = time.monotonic()
        self._announced = False
        self._stopping = False

    def run(self) -> None:
        """Answer until SIGTERM or SIGINT; accepted requests are answered first.

        Raises:
            UserError: a worker ends before all have answered for the first time.
        """
        with tempfile.TemporaryDirectory(prefix="embfit-metrics-") as metrics, self._heeding_signals():
            try:
                for number in range(self.settings.workers):
                    self._start(number, metrics, FIRST_DELAY)
                while not self._stopping:
                    self._look(metrics)
            finally:
                self._end()

    def _look(self, metrics: str) -> None:
        """Read the workers' heartbeats, notice those that have ended, and start the replacements that are due."""
        waiting = [worker.answers for worker in self._running]
        heard, _, _ = select.select(waiting, [], [], LOOKED_EVERY)
        for worker in [worker for worker in self._running if worker.answers in heard]:
            said = os.read(worker.answers, 1000).decode()
            if not said:
                self._replace(worker, metrics)
                continue
            worker.heard = time.monotonic()
            if not worker.label:
                worker.label = said.strip()
                log.info("worker %d answers (process %d)", worker.number, worker.child.process.pid)
        self._replace_silent(metrics)
        if not self._announced and all(worker.label for worker in self._running):
            self._announced = True
            address = url(self.listening)
            log.info(
                "%s answers at %s by %d workers (guide: %s/docs)",
                *(self._running[0].label, address, len(self._running), address),
            )
        now = time.monotonic()
        due, self._due = [one for one in self._due if one[0] <= now], [one for one in self._due if one[0] > now]
        for _, number, delay in due:
            self._start(number, metrics, delay)

    def _replace_silent(self, metrics: str) -> None:
        """Kill and replace workers whose heartbeats have stopped."""
        now = time.monotonic()
        paused = now - self._looked > SILENT / 2  # the machine was probably suspended
        self._looked = now
        for worker in [worker for worker in self._running if worker.label]:
            if paused:
                worker.heard = now
            elif now - worker.heard > SILENT:
                worker.child.process.kill()
                self._replace(worker, metrics, f"it gave no sign of life for {SILENT:g} s")

    def _start(self, number: int, metrics: str, delay: float) -> None:
        answers, answering = os.pipe()
        shared = self.store.shared
        job = WorkerJob(
            settings=asdict(replace(self.settings, workers=1)),
            bundle=(str(self.versions.dir), self.versions.name),
            device=self.devices[number % len(self.devices)],
            store=(str(self.store.dir), self.store.enabled, None if shared is None else shared.address),
            listening=self.listening.fileno(),
            answering=answering,
        )
        cores = len(os.sched_getaffinity(0))
        threads = os.environ.get(THREADS, str(max(1, cores // self.settings.workers)))
        try:
            child = ChildProcess.start(
                MODULE,
                [job.written()],
                self.folder / f"worker-{number}.txt",
                environment={SHARED: metrics, THREADS: threads},
                pass_fds=(job.listening, answering),
                stdin=subprocess.PIPE,  # it closes, and stops the worker, however this process ends
            )
        finally:
            os.close(answering)
        self._running.append(_Worker(number, child, answers, delay))

    def _replace(self, worker: _Worker, metrics: str, why: str = "") -> None:
        """Replace a worker that has ended.

        Args:
            worker: the worker that has ended.
            metrics: the folder of all workers' metrics.
            why: the reason, if this process killed it.

        Raises:
            UserError: not all workers have answered yet, so a replacement would probably fail as well.
        """
        self._running.remove(worker)
        os.close(worker.answers)
        worker.child.end(GRACE)
        reason = why or worker.child.error_summary("lower server.workers, or free some memory")
        if self._stopping:
            return
        if not self._announced:
            raise UserError(f"worker {worker.number} cannot serve: {reason}")
        forget_process(worker.child.process.pid, metrics)
        delay = FIRST_DELAY if worker.label else min(LAST_DELAY, 2 * worker.delay)
        log.error("worker %d has ended: %s; another takes its place in %.0f s", worker.number, reason, delay)
        self._due.append((time.monotonic() + delay, worker.number, delay))

    def _end(self) -> None:
        """Stop the workers; they answer the requests that they have accepted first."""
        for worker in self._running:
            with suppress(ProcessLookupError):
                worker.child.process.terminate()
        end = time.monotonic() + self.settings.stop_seconds + GRACE
        for worker in self._running:
            worker.child.end(max(0.0, end - time.monotonic()))
            os.close(worker.answers)
        self._running = []

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            self._stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
