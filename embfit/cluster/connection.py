"""The cluster that the run has joined, if there is one.

Where something is computed changes no result, so it is no argument of what computes: an encoder, a search or a
generator asks for the cluster when there is enough work to spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from embfit.cluster.protocol import Work


class Cluster(Protocol):
    """Workers that share work."""

    @property
    def device(self) -> str:
        """The device that each worker computes on, by PyTorch's name."""

    def spread(self, work: Work, part: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Yield the numbers of parts with their results, in the order in which they are done.

        A part whose worker is lost is done again by another one. Parts that no worker has begun when the caller stops
        asking are not done. One work is done at a time: the results of one are all read, or their iterator is closed,
        before the next one begins.

        Args:
            work: what each worker gets once.
            part: returns the input of a part by its number; called when a worker is free for it.
            numbers: of the parts that are to be done.

        Raises:
            UserError: a part refuses, workers cannot start, or one part has ended several workers.
            Exception: what a part raises.
        """


_joined: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


def current_cluster() -> Cluster | None:
    """Return the cluster that this run has joined; None is this machine alone."""
    return _joined.get()


@contextmanager
def computing_on(cluster: Cluster) -> Iterator[None]:
    """Have what is computed inside the block spread over a cluster."""
    before = _joined.set(cluster)
    try:
        yield
    finally:
        _joined.reset(before)
