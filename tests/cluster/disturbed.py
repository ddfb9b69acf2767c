"""A cluster on which something happens half-way, and work that ends its worker."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embfit.cluster import Do, RayCluster, Work, current_cluster
from embfit.cluster.connection import Cluster, computing_on
from embfit.errors import UserError
from embfit.model import embed
from embfit.store import Store


class Disturbed:
    """Workers as they are, and what happens once so many parts are done.

    Args:
        cluster: has the workers.
        after: parts that are done before.
        happens: is called once then.
    """

    def __init__(self, cluster: Cluster, after: int, happens: Callable[[], object]) -> None:
        self.cluster, self.after, self.happens = cluster, after, happens
        self.device = cluster.device
        self.sent: list[int] = []
        self.done = 0

    def spread(self, work: Work, part: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[tuple[int, Any]]:
        def sent(number: int) -> Any:
            self.sent.append(number)
            return part(number)

        for number, result in self.cluster.spread(work, sent, numbers):
            yield number, result
            self.done += 1
            if self.done == self.after:
                self.happens()


@dataclass(frozen=True)
class Ending:
    """Ends the worker's process at one part, and returns the number of the process at any other."""

    at: int

    def prepare(self, device: str) -> Do:
        def do(number: int) -> int:
            if number == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            return os.getpid()

        return do


@dataclass(frozen=True)
class Sleeping:
    """Takes so many seconds for each part."""

    seconds: float

    def prepare(self, device: str) -> Do:
        return lambda part: time.sleep(self.seconds)


@dataclass(frozen=True)
class Refusing:
    """Refuses every part."""

    def prepare(self, device: str) -> Do:
        def do(number: int) -> None:
            raise UserError("set model.backend=torch")

        return do


def process_of(place: str) -> int:
    """Return the number of a worker's process."""
    found = re.search(r"\(process (\d+)\)", place)
    assert found
    return int(found[1])


def main(address: str, store: str, after: str) -> None:
    """Encode on a cluster; be killed once so many parts are done, or print which parts were sent."""
    from tests.cluster.conftest import set_small_parts
    from tests.conftest import new_collection, new_encoder, new_tokenizer

    set_small_parts()
    with RayCluster(address=address).joined():
        joined = current_cluster()
        assert joined is not None
        cluster = Disturbed(joined, int(after), lambda: os.kill(os.getpid(), signal.SIGKILL))
        with computing_on(cluster):
            embed(new_encoder(new_tokenizer()), new_collection(), "document", Store(Path(store)))
    print(*sorted(cluster.sent))


if __name__ == "__main__":
    main(*sys.argv[1:])
