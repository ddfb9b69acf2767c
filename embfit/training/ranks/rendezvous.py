"""Before ranks join a process group: each reports that it is ready, or why it cannot join.

A process that waits inside a process group notices neither Ctrl-C nor the end of another process. So the first rank
polls until all are ready, and only then do they join.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined]  # torch only types it

from embfit.errors import UserError

ARRIVAL = timedelta(minutes=30)  # time for all ranks to arrive
POLL = 0.2  # seconds between two polls
GO, OFF = "go", "off"


def await_ranks(store: Store, size: int, look: Callable[[], None]) -> None:
    """Wait, as the first rank, until the others are ready, and let them join.

    Args:
        store: connects the ranks of this training.
        size: how many ranks there are.
        look: is called at every poll, and raises an error if a rank has ended.

    Raises:
        UserError: a rank cannot join (with its own message), or has not arrived in time.
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
    """Report that a rank is ready, and wait; return whether it should join, which is false if another rank cannot."""
    store.set(_place(rank), "")
    while not store.check(["start"]):
        time.sleep(POLL)
    return store.get("start").decode() == GO


def cancel(store: Store) -> None:
    """Tell the waiting ranks not to join."""
    store.set("start", OFF)


def post_failure(store: Store, words: str) -> None:
    """Report why a rank failed; the first report counts, since later failures are only lost connections."""
    if store.add("failures", 1) == 1:
        store.set("failure", words)


def failure(store: Store, patience: float = 0.0) -> str:
    """Return the first reported failure; empty if none arrives within a few seconds."""
    end = time.monotonic() + patience
    while not store.check(["failure"]):
        if time.monotonic() >= end:
            return ""
        time.sleep(POLL)
    return store.get("failure").decode()


def _place(rank: int) -> str:
    return f"rank {rank}"
