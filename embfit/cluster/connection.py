"""The cluster that the run has joined, if there is one.

The cluster changes no result, so it is not passed as an argument: an encoder, a search or a generator gets it here when
it has enough work to distribute.
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
        """Yield the numbers of parts with their results, in the order in which they finish.

        A part whose worker is lost is computed again by another one. When the caller stops reading, parts that have not
        started are dropped. Only one work runs at a time: read all of its results, or close the iterator, before the
        next one starts.

        Args:
            work: the work, which each worker receives once.
            part: returns the input of a part by its number; called when a worker is free for it.
            numbers: the numbers of the parts.

        Raises:
            UserError: a part raises it, workers cannot start, or one part has crashed several workers.
            Exception: any other exception of a part.
        """


_joined: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


def current_cluster() -> Cluster | None:
    """Return the cluster that this run has joined; None means only this machine."""
    return _joined.get()


@contextmanager
def computing_on(cluster: Cluster) -> Iterator[None]:
    """Distribute the work inside the block over a cluster."""
    before = _joined.set(cluster)
    try:
        yield
    finally:
        _joined.reset(before)
