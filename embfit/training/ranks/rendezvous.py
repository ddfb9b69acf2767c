"""Before ranks join a process group: each says that it is there, or why it cannot come.

A process that waits in a group for another notices neither Ctrl-C nor that the other one is gone. So the first rank
asks in short turns until all are there, and only then do they join.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined]  # torch only types it

from embfit.errors import UserError

ARRIVAL = timedelta(minutes=30)  # for all ranks to be there
POLL = 0.2  # seconds between two looks
GO, OFF = "go", "off"


def await_ranks(store: Store, size: int, look: Callable[[], None]) -> None:
    """Wait as the first rank until the others are there, and let them join.

    Args:
        store: connects the ranks of this training.
        size: how many ranks there are.
        look: is called at every turn, and raises an error when it knows that a rank is lost.

    Raises:
        UserError: a rank cannot come, in its own words, or has not come in time.
    """
    end = time.monotonic() + ARRIVAL.total_seconds()
    absent = list(range(1, size))
    while True:
        look()
        if words := failure(store):
            raise UserError(words)
        absent = [rank for rank in absent if not store.check([_place(rank)])]
        if not absent:
            break
        if time.monotonic() > end:
            raise UserError(
                f"rank {', '.join(map(str, absent))} of {size} has not come within {ARRIVAL.total_seconds() / 60:.0f} "
                "minutes; read what it said (checkpoints/rank-N.txt, or the launcher's log)"
            )
        time.sleep(POLL)
    store.set("start", GO)


def arrive(store: Store, rank: int) -> bool:
    """Say that a rank is there, and wait; return whether it is to join, which it is not if another cannot come."""
    store.set(_place(rank), "")
    while not store.check(["start"]):
        time.sleep(POLL)
    return store.get("start").decode() == GO


def cancel(store: Store) -> None:
    """Tell ranks that still wait to join that there is nothing to join."""
    store.set("start", OFF)


def post_failure(store: Store, words: str) -> None:
    """Tell the first rank why another failed; those that fail later have lost their connection to that one."""
    if store.add("failures", 1) == 1:
        store.set("failure", words)


def failure(store: Store, patience: float = 0.0) -> str:
    """Return why the first of the ranks that failed did so; empty if none says so within some seconds."""
    end = time.monotonic() + patience
    while not store.check(["failure"]):
        if time.monotonic() >= end:
            return ""
        time.sleep(POLL)
    return store.get("failure").decode()


def _place(rank: int) -> str:
    return f"rank {rank}"
