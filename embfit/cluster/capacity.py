"""Computes how many workers fit on a cluster, because Ray waits silently for workers that can never fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from embfit.errors import UserError

TITLES = {"CPU": "CPUs", "GPU": "GPUs", "memory": "GB of memory"}
SETTINGS = {"CPU": "cluster.cpus", "GPU": "cluster.gpus", "memory": "cluster.memory_gb"}
GB = 1e9

Resources = Mapping[str, float]


def number_of_workers(machines: Sequence[Resources], each: Resources, wanted: int | None) -> int:
    """Return the number of workers to start, after checking that they fit.

    Args:
        machines: the resources of each machine, by Ray's names.
        each: the resources of each worker.
        wanted: the requested number of workers; None is as many as fit.

    Raises:
        UserError: fewer workers fit than requested, or none.
    """
    room = sum(_room(machine, each) for machine in machines)
    if room and (wanted is None or wanted <= room):
        return wanted or room
    taken = {name: amount for name, amount in each.items() if amount}
    asked = " and ".join(_amount(name, [amount]) for name, amount in taken.items()) or "nothing"
    there = ", ".join(_amount(name, [machine.get(name, 0.0) for machine in machines]) for name in taken)
    many = f"cluster.workers={wanted} with" if wanted else "a worker with"
    knobs = dict.fromkeys(SETTINGS.get(name, "cluster.resources") for name in taken)
    remedy = ", ".join([*(["cluster.workers"] if room else []), *knobs])
    raise UserError(
        f"{many} {asked} each: the cluster has room for {room}; its machines ({len(machines)}) have {there}; "
        f"lower {remedy}, or add machines"
    )


def _room(machine: Resources, each: Resources) -> int:
    """Return how many workers fit on one machine."""
    fits = [math.floor(machine.get(name, 0.0) / amount + 1e-9) for name, amount in each.items() if amount]
    return min(fits, default=0)


def _amount(name: str, amounts: Sequence[float]) -> str:
    """Format the amounts of a resource: `2, 4 CPUs`."""
    scale = GB if name == "memory" else 1.0
    return f"{', '.join(f'{amount / scale:g}' for amount in amounts)} {TITLES.get(name, name)}"
