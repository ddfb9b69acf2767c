"""A rank other than the first: it receives a module, trains it with the others, and saves nothing.

`python -m embfit.training.ranks.worker JOB PORT RANK` is how the first rank starts one on its own machine.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # torch only types them

from embfit.errors import UserError, first_line
from embfit.run.exit_status import exit_status
from embfit.run.launch_environment import LaunchEnvironment
from embfit.training.fit.loop import run
from embfit.training.ranks.launch import (
    END,
    PATIENCE,
    RankJob,
    abort_process_group,
    in_process_group,
    meeting_point,
    on_device_of_rank,
)
from embfit.training.ranks.rendezvous import arrive, post_failure

log = logging.getLogger(__name__)


def train_as_rank(path: Path, place: tuple[int, int], store: Store) -> None:
    """Train the module of a job as one of its ranks.

    Args:
        path: names the file that holds the job.
        place: says which rank this process is among all of them, and among those of its machine.
        store: connects the ranks of this job.
    """
    rank, local_rank = place
    found = _read(path)
    job, devices = found.job, found.devices
    settings = {**devices.settings(job.settings, local_rank), "logger": False}
    with on_device_of_rank(devices, local_rank, found.threads):
        if arrive(store, rank):
            with in_process_group(rank, devices, store) as ranks:
                run(replace(job, settings=settings), ranks)


def _read(path: Path) -> RankJob:
    try:
        # written by this run's first rank; memory-mapped, so that ranks of one machine share the weights
        job: RankJob = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; put run.dir on a disk that all machines see") from error
    except (AttributeError, ImportError) as error:
        raise UserError(
            f"cannot import what is trained ({first_line(error)}); define it in a module that every rank can import, "
            "not in the script that is run"
        ) from error
    return job


def serve_jobs(world: LaunchEnvironment) -> None:
    """Take part in the jobs of the launcher's first process, one after another, until there are no more."""
    board = meeting_point(world)
    number = 0
    while (notice := board.get(f"job {number}").decode()) != END:
        group = PrefixStore(f"group {number}", board)
        try:
            train_as_rank(Path(notice), (world.rank, world.local_rank), group)
        except Exception as error:  # this trial has failed for all ranks; the next one may work
            log.exception("rank %d: job %d failed", world.rank, number)
            post_failure(group, f"rank {world.rank} of {world.size} failed: {exit_status(error).message}")
            abort_process_group()
        number += 1


def main(arguments: list[str]) -> None:
    """Train one job beside a first rank on this machine."""
    path, port, rank = arguments
    store = TCPStore(
        "127.0.0.1", int(port), is_master=False, timeout=timedelta(minutes=1)
    )  # the first rank has opened it, or has ended
    store.set_timeout(PATIENCE)
    train_as_rank(Path(path), (int(rank), int(rank)), store)


if __name__ == "__main__":
    main(sys.argv[1:])
