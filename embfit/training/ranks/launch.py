"""The other ranks of a training: started here, or by torchrun or SLURM, and sent away when it is over.

They get the module itself, as this process made it from the run's configuration: no command line is read a second time,
no data loaded, nothing mined. So a sweep trains each of its trials once, however many ranks there are.

What is handed over lies in the run's folder, and tokens in the store: with several machines, both must be on a disk
that all of them see.
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

PATIENCE = timedelta(days=7)  # for a validation, or another trial of a sweep; a rank that ends is noticed at once
GRACE = 10.0  # seconds for a rank to end by itself
END = "end"  # in the place of a job's file: no more of them
OURS = ("callbacks", "logger", "profiler", "plugins", "strategy", "devices", "num_nodes")  # not the other ranks'
RELIEF = "lower trainer.devices or training.memory_gb"


@dataclass(frozen=True)
class RankJob:
    """What one rank is to train with the others.

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
    """Have all ranks train; inside, this process is the first of the ranks that are returned.

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
                raise  # this rank's own, which the others lose with it
            except RuntimeError as error:
                if words := _lost(children, store, devices):
                    raise UserError(words) from error
                raise
            finally:
                cancel(store)  # for ranks that still wait to join
    finally:
        abort_process_group()  # after a failure; else it has been left
        path.unlink(missing_ok=True)


@contextmanager
def on_device_of_rank(devices: Devices, local_rank: int, threads: int) -> Iterator[None]:
    """Compute on the device of a rank's place.

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
        torch.set_num_threads(threads)  # else every rank takes all cores
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def in_process_group(rank: int, devices: Devices, store: Store) -> Iterator[Ranks]:
    """Join the process group of all ranks and return them.

    The group is left when the block ends well. After a failure it is the caller's to `abort_process_group`.

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
    """End the process group that a failure has left, if there is one, without waiting for the other ranks."""
    if not distributed.is_initialized():
        return
    if distributed.get_backend() == "nccl":  # which would wait for what was queued, and other ranks will never do
        distributed.group.WORLD._get_backend(torch.device("cuda")).abort()  # type: ignore[union-attr]
    distributed.destroy_process_group()


def open_job_board(world: LaunchEnvironment) -> None:
    """Open the place where the processes that torchrun or SLURM started beside this one wait for work."""
    _job_board(world)


def close_job_board(world: LaunchEnvironment) -> None:
    """Tell them that there is nothing more to train."""
    _job_board(world).post(END)


def meeting_point(world: LaunchEnvironment) -> Store:
    """Return the store through which the processes of a launcher meet."""
    hosts = world.rank == 0 and not world.has_store
    store = TCPStore(world.address, world.port, is_master=hosts, timeout=ARRIVAL, wait_for_workers=False)
    store.set_timeout(PATIENCE)
    return PrefixStore(f"embfit/{world.attempt}", store)


class _JobBoard:
    """Where the first process of a launcher tells the others what is next; they count along."""

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
    """Call the processes that wait already."""
    yield _job_board(world).post(str(path.absolute())), {}


@contextmanager
def _posted(path: Path, devices: Devices, folder: Path) -> Iterator[tuple[Store, dict[int, ChildProcess]]]:
    """Start the other ranks as processes of this machine, which end with the block."""
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
    """Refuse to wait for a rank that has ended before it was there."""
    for rank, child in children.items():
        if child.has_ended:
            raise UserError(_told(rank, child, devices))


def _lost(children: Mapping[int, ChildProcess], store: Store, devices: Devices) -> str:
    """Say which rank was the first to fail and why, giving all a moment to do so; empty if none did.

    Those after it have lost their connection to it.
    """
    if not children:
        return failure(store, GRACE)
    end = time.monotonic() + GRACE
    failed = [rank for rank, child in children.items() if child.failed(max(0.0, end - time.monotonic()))]
    first = min(failed, key=lambda rank: children[rank].output.stat().st_mtime_ns, default=None)
    return "" if first is None else _told(first, children[first], devices)


def _told(rank: int, child: ChildProcess, devices: Devices) -> str:
    return f"rank {rank} of {devices.size} failed: {child.error_summary(RELIEF)}"
