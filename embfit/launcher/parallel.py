"""Several jobs at a time on this machine, each in its own process and on its own device.

Each job gets a new process instead of a place in a pool such as joblib's. If the system kills one, for instance because
memory runs out, the others continue, and when a job ends, all memory of its device is free.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import Field

from embfit.compose.problems import Problem
from embfit.launcher.prepared_job import JOBS, PreparedJob, inherited_module_path
from embfit.run.console import show_error
from embfit.run.record import read_status

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between two checks of the jobs
GRACE = 60.0  # seconds that an interrupted job gets to write a checkpoint
LAST_GRACE = 10.0  # seconds after the second interruption
CORES = 4  # CPU cores per job by default


@dataclass(frozen=True)
class Parallel:
    """Runs several jobs at a time.

    Args:
        max_parallel: the number of jobs that run at a time; None runs one per device, or one per four CPU cores.
        devices: the numbers of the GPUs to use, one per job; None uses all that this process may use.
        threads: the CPU threads of each job; None divides the cores among the jobs.
    """

    max_parallel: Annotated[int, Field(ge=1)] | None = None
    devices: Sequence[Annotated[int, Field(ge=0)]] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None

    def cluster_problems(self, cluster: Mapping[str, Any] | None) -> Iterator[Problem]:
        """Yield why jobs that run at the same time would wait for each other's workers.

        Args:
            cluster: the settings of a job's cluster; None is this machine.
        """
        if cluster is not None and "workers" in cluster and cluster["workers"] is None:
            reason = "null takes every CPU of the cluster for one job, and launcher=parallel runs several"
            yield Problem("cluster.workers", f"{reason}; set it to each job's share, or leave the launcher out")

    def launch(self, jobs: Sequence[PreparedJob], folder: Path, ended: Callable[[], None]) -> list[str | None]:
        """Run jobs and return the error of each; None for those that ended well.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C; the running jobs are interrupted and can be resumed.
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
                        errors[number] = _show_error(job, process.returncode, folder)
                        log.info("%d of %d jobs have ended", len(errors), len(jobs))
                        ended()
                time.sleep(POLL)
        finally:
            _interrupt([process for _, _, process in running.values()])
        return [errors[job.number] for job in jobs]

    def _places(self, jobs: int) -> list[dict[str, str]]:
        """Return the environment variables that give each concurrent job its share of the machine."""
        devices = _visible() if self.devices is None else [str(number) for number in self.devices]
        max_parallel = min(jobs, self.max_parallel or len(devices) or max(1, _cores() // CORES))
        cpu = {"OMP_NUM_THREADS": str(self.threads or max(1, _cores() // max_parallel))}
        shares = (
            {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {} for place in range(max_parallel)
        )
        return [cpu | share for share in shares]


def _start(job: PreparedJob, place: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    file = job.write(folder)
    log.info("%s starts; its output is in %s", job.name, file.with_suffix(".txt"))
    with inherited_module_path(), file.with_suffix(".txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "embfit.launcher.worker", str(file), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **place},
            start_new_session=True,  # Ctrl-C is for the sweep, which interrupts its jobs
        )


def _show_error(job: PreparedJob, code: int, folder: Path) -> str | None:
    """Show a job's error and return it; None if there is none."""
    if code == 0:
        return None
    status: dict[str, Any] = read_status(job.dir) or {}
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    message = status.get("error") or f"its process {how}; see {folder / JOBS / f'{job.number}.txt'}"
    show_error(f"{job.name}: {message}")
    return str(message)


def _interrupt(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End jobs: first after the current step and its checkpoint, then at once, then by force."""
    for grace in (GRACE, LAST_GRACE):
        for process in processes:
            process.terminate()  # at the second signal a job records that it was interrupted, and ends
        end = time.monotonic() + grace
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    for process in processes:
        process.kill()
        process.wait()


def _cores() -> int:
    """Return the number of cores that this process may use; macOS does not tell, so there all of them count."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


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
