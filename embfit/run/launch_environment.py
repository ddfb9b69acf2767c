"""The place of this process among those that torchrun or SLURM started.

It is read only from the environment, without importing anything heavy: a process other than the first composes no
configuration and runs no task. It waits for the trainings of the first one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from embfit.errors import ConfigError

SLURM_PORTS = range(15_000, 20_000)  # the job number chooses one of them, the same on every node


@dataclass(frozen=True)
class LaunchEnvironment:
    """One process among those that an external launcher started.

    Args:
        rank: the number of this process, from 0.
        size: the number of processes on all machines.
        local_rank: the number of this process on its machine, from 0.
        local_size: the number of processes on each machine.
        address: the address of rank 0's machine.
        port: the port of the store through which the processes connect.
        has_store: whether the launcher runs that store (torchrun); otherwise rank 0 does.
        attempt: torchrun's number of restarts, so that an attempt does not read the messages of an earlier one.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    has_store: bool
    attempt: str = "0"


def launch_environment(environment: Mapping[str, str] = os.environ) -> LaunchEnvironment | None:
    """Return this process's place among those of torchrun or `srun`; None if it was started alone.

    Raises:
        ConfigError: a variable that goes with the others is missing, or is no number.
    """
    try:
        if "WORLD_SIZE" in environment and "RANK" in environment:
            return _torchrun(environment)
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # srun sets it, sbatch does not
            return _slurm(environment)
    except KeyError as error:
        raise ConfigError(
            f"the launcher's environment lacks {error.args[0]}; start embfit with torchrun or srun, or unset "
            "WORLD_SIZE and RANK"
        ) from error
    except ValueError as error:
        raise ConfigError(f"the launcher's environment: {error}") from error
    return None


def _torchrun(environment: Mapping[str, str]) -> LaunchEnvironment | None:
    size = int(environment["WORLD_SIZE"])
    if size == 1:
        return None
    return LaunchEnvironment(
        rank=int(environment["RANK"]),
        size=size,
        local_rank=int(environment["LOCAL_RANK"]),
        local_size=int(environment["LOCAL_WORLD_SIZE"]),
        address=environment["MASTER_ADDR"],
        port=int(environment["MASTER_PORT"]),
        has_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def _slurm(environment: Mapping[str, str]) -> LaunchEnvironment:
    job = int(environment["SLURM_JOB_ID"])
    return LaunchEnvironment(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        local_size=_tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"]),
        address=environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        port=int(environment.get("MASTER_PORT") or SLURM_PORTS[job % len(SLURM_PORTS)]),
        has_store=False,
    )


def _tasks_per_node(counts: str) -> int:
    """Return the number of tasks on each node of SLURM's short form: `4(x2)` is 4."""
    if "," in counts:
        raise ConfigError(f"the launcher's nodes have different numbers of tasks ({counts}); set --ntasks-per-node")
    return int(counts.partition("(")[0])


def first_host(nodes: str) -> str:
    """Return the first host of SLURM's short form: `gpu[03-05,9]n[1-2],cpu1` is `gpu03n1`."""
    first = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes)  # the first number of each bracket
    return first.split(",")[0]
