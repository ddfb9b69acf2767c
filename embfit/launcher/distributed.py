"""Processes that torchrun or SLURM started together: the first one runs the task, the others join its training."""

from __future__ import annotations

from collections.abc import Callable

from embfit.run.console import listen
from embfit.run.launch_environment import launch_environment


def on_first_rank(work: Callable[[], None]) -> None:
    """Do some work; in a group of processes, only the first does it, and the others join its training."""
    world = launch_environment()
    if world is None:
        work()
    elif world.rank == 0:
        from embfit.training.ranks.launch import close_job_board, open_job_board

        open_job_board(world)
        try:
            work()
        finally:
            close_job_board(world)
    else:
        from embfit.training.ranks.worker import serve_jobs

        listen()
        serve_jobs(world)
