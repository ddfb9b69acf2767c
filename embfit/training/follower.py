"""A rank other than the first: it is given a module, trains it with the others, and keeps nothing.

`python -m embfit.training.follower JOB PORT RANK` is how the first rank starts one on its own machine.
"""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # torch only types them

from embfit.errors import UserError, first_line
from embfit.outcome import outcome
from embfit.training.arrival import arrive, post_failure
from embfit.training.crew import END, PATIENCE, Job, abandon, joined, meeting_point, placed
from embfit.training.loop import run
from embfit.world import World

log = logging.getLogger(__name__)


def follow(path: Path, place: tuple[int, int], store: Store) -> None:
    """Train the module of a job as one of its ranks.

    Args:
        path: of the job.
        place: of this process: its rank, and its rank on its machine.
        store: through which this job's ranks meet.
    """
    rank, local_rank = place
    job = _read(path)
    settings = {**job.layout.settings(job.settings, local_rank), "logger": False}
    with placed(job.layout, local_rank, job.threads):
        if arrive(store, rank):
            with joined(job.module, rank, job.layout, store):
                run(job.module, settings, [], job.steps, job.folder, job.start)


def _read(path: Path) -> Job:
    try:
        job: Job = torch.load(path, map_location="cpu", weights_only=False)  # written by this run's first rank
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; put run.dir on a disk that all machines see") from error
    except (AttributeError, ImportError) as error:
        raise UserError(
            f"cannot import what is trained ({first_line(error)}); define it in a module that every rank can import, "
            "not in the script that is run"
        ) from error
    return job


def serve(world: World) -> None:
    """Train what the first process of a launcher trains, job after job, until it says that there is no more."""
    board = meeting_point(world)
    number = 0
    while (notice := board.get(f"job {number}").decode()) != END:
        group = PrefixStore(f"group {number}", board)
        try:
            follow(Path(notice), (world.rank, world.local_rank), group)
        except Exception as error:  # this trial of a sweep is lost, also for the first rank; the next one is another
            log.exception("rank %d: job %d failed", world.rank, number)
            post_failure(group, f"rank {world.rank} of {world.size} failed: {outcome(error).message}")
            abandon()
        number += 1


def main(arguments: list[str]) -> None:
    """Train one job beside a first rank on this machine."""
    path, port, rank = arguments
    store = TCPStore(
        "127.0.0.1", int(port), is_master=False, timeout=timedelta(minutes=1)
    )  # it is there, or its process is gone
    store.set_timeout(PATIENCE)
    follow(Path(path), (int(rank), int(rank)), store)


if __name__ == "__main__":
    main(sys.argv[1:])
