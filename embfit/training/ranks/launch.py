"""Launches the other ranks of a training, or calls those that torchrun or SLURM have started.

They get the module itself, which this process made from the run's configuration: they read no command line,
load no data and mine nothing. So a sweep trains each of its trials once, however many ranks there are.

The module is passed in a file of the run's folder, and the tokens are in the store: with several machines, both must
be on a disk that all of them see.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # torch only types them

from embfit.errors import UserError
from embfit.run.child_process import ChildProcess
from embfit.run.devices import Devices
from embfit.run.launch_environment import LaunchEnvironment, launch_environment
from embfit.training.fit.loop import Job
from embfit.training.ranks.collectives import Ranks
from embfit.training.ranks.rendezvous import ARRIVAL, await_ranks, cancel, failure

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=7)  # a validation or a sweep's next trial may take long; a rank that ends is noticed at once
GRACE = 10.0  # seconds that a rank has to end by itself
END = "end"  # instead of a job's file: there are no more jobs
OURS = ("callbacks", "logger", "profiler", "plugins", "strategy", "devices", "num_nodes")  # not the other ranks'
RELIEF = "lower trainer.devices or training.memory_gb"


@dataclass(frozen=True)
class RankJob:
    """The part of a training that one rank runs.

    Args:
        job: describes the training that the ranks share.
        devices: say where each rank computes.
        threads: how many threads a rank on a CPU computes with.
    """

    job: Job
    devices: Devices
    threads: int


@contextmanager
def launch_ranks(job: Job, devices: Devices) -> Iterator[Ranks]:
    """Start all ranks and yield them; inside the context, this process is the first rank.

    Args:
        job: describes the training as this process, the first rank, does it.
        devices: say where each rank computes.

    Raises:
        UserError: another rank failed.
    """
    if devices.size == 1:
        yield Ranks()
        return
    threads = max(1, torch.get_num_threads() // devices.local_size)
    shared = {name: value for name, value in job.settings.items() if name not in OURS}
    path = job.folder / "job.pt"
    torch.save(RankJob(replace(job, settings=shared), devices, threads), path)
    world = launch_environment()
    try:
        with _posted(path, devices, job.folder) if world is None else _announced(path, world) as (store, children):
            try:
                with on_device_of_rank(devices, 0, threads):
                    await_ranks(store, devices.size, partial(_look, children, devices))
                    with in_process_group(0, devices, store) as ranks:
                        yield ranks
            except torch.OutOfMemoryError:
                raise  # this rank's own store; the others lose their connection when it ends
            except RuntimeError as error:
                if words := _lost(children, store, devices):
                    raise UserError(words) from error
                raise
            finally:
                cancel(store)  # for ranks that still wait to join
    finally:
        abort_process_group()  # only after a failure; otherwise it has been destroyed already
        path.unlink(missing_ok=True)


@contextmanager
def on_device_of_rank(devices: Devices, local_rank: int, threads: int) -> Iterator[None]:
    """Compute on a rank's device in this context.

    Args:
        devices: say where each rank computes.
        local_rank: says which of its machine's ranks this process is, counted from 0.
        threads: how many threads a rank on a CPU computes with.
    """
    before = torch.get_num_threads()
    device = torch.device(devices.all[local_rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads)  # otherwise every rank would use all cores
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def in_process_group(rank: int, devices: Devices, store: Store) -> Iterator[Ranks]:
    """Join the process group of all ranks and return them.

    The group is destroyed if the block ends without an exception. After one, the caller must call
    `abort_process_group`.

    Args:
        rank: says which of the ranks this process is, counted from 0.
        devices: say where each rank computes.
        store: connects the ranks until they have a process group.
    """
    on_gpu = torch.device(devices.first).type == "cuda"
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=devices.size,
        timeout=None if on_gpu else PATIENCE,
    )
    control = distributed.new_group(backend="gloo", timeout=PATIENCE)
    yield Ranks(rank, devices.size, devices.local_size, control, devices.sharded)
    distributed.destroy_process_group()


def abort_process_group() -> None:
    """End the process group after a failure, if there is one, without waiting for the other ranks."""
    if not distributed.is_initialized():
        return
    if distributed.get_backend() == "nccl":  # destroying it would wait for operations that the other ranks never join
        distributed.group.WORLD._get_backend(torch.device("cuda")).abort()  # type: ignore[union-attr]
    distributed.destroy_process_group()


def open_job_board(world: LaunchEnvironment) -> None:
    """Open the job board at which the other processes of torchrun or SLURM wait for work."""
    _job_board(world)


def close_job_board(world: LaunchEnvironment) -> None:
    """Tell the waiting processes that there is nothing more to train."""
    _job_board(world).post(END)


def meeting_point(world: LaunchEnvironment) -> Store:
    """Return the store through which the processes of a launcher meet."""
    hosts = world.rank == 0 and not world.has_store
    store = TCPStore(world.address, world.port, is_master=hosts, timeout=ARRIVAL, wait_for_workers=False)
    store.set_timeout(PATIENCE)
    return PrefixStore(f"embfit/{world.attempt}", store)


class _JobBoard:
    """A numbered list of jobs, by which the first process of a launcher gives work to the others."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.posted = 0

    def post(self, text: str) -> Store:
        self.store.set(f"job {self.posted}", text)
        self.posted += 1
        return PrefixStore(f"group {self.posted - 1}", self.store)


@functools.cache
def _job_board(world: LaunchEnvironment) -> _JobBoard:
    return _JobBoard(meeting_point(world))


@contextmanager
def _announced(path: Path, world: LaunchEnvironment) -> Iterator[tuple[Store, dict[int, ChildProcess]]]:
    """Give a job to the processes that a launcher has started."""
    yield _job_board(world).post(str(path.absolute())), {}


@contextmanager
def _posted(path: Path, devices: Devices, folder: Path) -> Iterator[tuple[Store, dict[int, ChildProcess]]]:
    """Start the other ranks as processes of this machine; they end with the block."""
    store = TCPStore("127.0.0.1", 0, devices.size, is_master=True, timeout=PATIENCE, wait_for_workers=False)
    children: dict[int, ChildProcess] = {}
    try:
        for rank in range(1, devices.size):
            arguments = [str(path), str(store.port), str(rank)]
            children[rank] = ChildProcess.start("embfit.training.ranks.worker", arguments, folder / f"rank-{rank}.txt")
        log.info("training on %d ranks", devices.size)
        yield store, children
    finally:
        for child in children.values():
            child.end(GRACE if sys.exc_info()[0] is None else 0.1)


def _look(children: Mapping[int, ChildProcess], devices: Devices) -> None:
    """Raise `UserError` if a rank has ended before it joined."""
    for rank, child in children.items():
        if child.has_ended:
            raise UserError(_told(rank, child, devices))


def _lost(children: Mapping[int, ChildProcess], store: Store, devices: Devices) -> str:
    """Return which rank failed first, and why; empty if none did. Ranks have a few seconds to report.

    Ranks that fail later have only lost their connection to that one.
    """
    if not children:
        return failure(store, GRACE)
    end = time.monotonic() + GRACE
    failed = [rank for rank, child in children.items() if child.failed(max(0.0, end - time.monotonic()))]
    first = min(failed, key=lambda rank: children[rank].output.stat().st_mtime_ns, default=None)
    return "" if first is None else _told(first, children[first], devices)


def _told(rank: int, child: ChildProcess, devices: Devices) -> str:
    return f"rank {rank} of {devices.size} failed: {child.error_summary(RELIEF)}"
