"""Several jobs at a time on this machine, each in a process of its own and with a device of its own.

Processes rather than a pool such as joblib's: one that the system kills, for memory perhaps, takes no other with it,
and a device that a job has used is free, with all its memory, when the job is over.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from embfit.launcher.prepared import JOBS, PreparedJob, inherited_module_path
from embfit.run.console import show_error
from embfit.run.record import read_status

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between two looks at the jobs
GRACE = 60.0  # seconds for a job that is interrupted to write down where it stands
LAST_GRACE = 10.0  # and for one that is asked again
CORES = 4  # of a CPU, that a job is given by default


@dataclass(frozen=True)
class Parallel:
    """Runs jobs beside each other.

    Args:
        max_parallel: jobs that run at a time; None is one for each device, or for each four cores of a CPU.
        devices: GPUs to use by number, one for each job; None is all that this process may use.
        threads: of each job on the CPU; None shares out the cores.
    """

    max_parallel: Annotated[int, Field(ge=1)] | None = None
    devices: Sequence[Annotated[int, Field(ge=0)]] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None

    def launch(self, jobs: Sequence[PreparedJob], folder: Path, ended: Callable[[], None]) -> list[str | None]:
        """Run jobs; return the error of each, None for those that went well.

        Raises:
            KeyboardInterrupt: Ctrl-C; the jobs that ran are interrupted and can be gone on with.
        """
        places = self._places(len(jobs))
        log.info("%d jobs, %d at a time", len(jobs), len(places))
        free, waiting = list(places), list(jobs)
        running: dict[int, tuple[PreparedJob, dict[str, str], subprocess.Popen[bytes]]] = {}
        errors: dict[int, str | None] = {}
        try:
            while waiting or running:
                while waiting and free:
                    job, place = waiting.pop(0), free.pop(0)
                    running[job.number] = job, place, _start(job, place, folder)
                for number, (job, place, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[number]
                        free.append(place)
                        errors[number] = _told(job, process.returncode, folder)
                        log.info("%d of %d jobs have ended", len(errors), len(jobs))
                        ended()
                time.sleep(POLL)
        finally:
            _interrupt([process for _, _, process in running.values()])
        return [errors[job.number] for job in jobs]

    def _places(self, jobs: int) -> list[dict[str, str]]:
        """Return, for each job that may run at a time, the environment that gives it its share of the machine."""
        devices = _visible() if self.devices is None else [str(number) for number in self.devices]
        max_parallel = min(jobs, self.max_parallel or len(devices) or max(1, _cores() // CORES))
        cpu = {"OMP_NUM_THREADS": str(self.threads or max(1, _cores() // max_parallel))}
        shares = (
            {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {} for place in range(max_parallel)
        )
        return [cpu | share for share in shares]


def _start(job: PreparedJob, place: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    file = job.write(folder)
    log.info("%s begins; %s has what it says", job.name, file.with_suffix(".txt"))
    with inherited_module_path(), file.with_suffix(".txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "embfit.launcher.worker", str(file), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **place},
            start_new_session=True,  # Ctrl-C is for the sweep, which interrupts its jobs
        )


def _told(job: PreparedJob, code: int, folder: Path) -> str | None:
    """Return a job's error and show it, None when there is none."""
    if code == 0:
        return None
    status: dict[str, Any] = read_status(job.dir) or {}
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    message = status.get("error") or f"its process {how}; see {folder / JOBS / f'{job.number}.txt'}"
    show_error(f"{job.name}: {message}")
    return str(message)


def _interrupt(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End jobs: after their step and its checkpoint, else at once, else by force."""
    for grace in (GRACE, LAST_GRACE):
        for process in processes:
            process.terminate()  # asked again, a job writes down that it was interrupted, and ends
        end = time.monotonic() + grace
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    for process in processes:
        process.kill()
        process.wait()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _visible() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    return list(_named()) if "CUDA_VISIBLE_DEVICES" in os.environ else [str(number) for number in range(_count())]


def _named() -> Iterator[str]:
    for name in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
        if name.strip() in ("", "-1"):
            return
        yield name.strip()


def _count() -> int:
    import torch

    return torch.cuda.device_count()
