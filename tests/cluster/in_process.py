"""Stands for a cluster in this process: whatever goes to a worker and back is pickled, and parts come in any order."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any

import torch

from embfit.cluster import Work
from embfit.cluster.ray_worker import pack


class Lost(Exception):  # noqa: N818  # it is none of the library's
    """Stands for the end of the run's own process."""


class InProcess:
    """Does parts from the last to the first.

    Args:
        lost_after: parts after which `Lost` is raised; None does all.
    """

    device = "cpu"

    def __init__(self, lost_after: int | None = None) -> None:
        self.lost_after = lost_after
        self.done: list[int] = []

    def spread(self, work: Work, part: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[tuple[int, Any]]:
        do = torch.load(io.BytesIO(pack(work)), weights_only=False).prepare(self.device)
        for number in reversed(list(numbers)):
            if len(self.done) == self.lost_after:
                raise Lost
            self.done.append(number)
            sent = pickle.loads(pickle.dumps(part(number)))
            yield number, pickle.loads(pickle.dumps(Context().run(do, sent)))  # a worker has joined no cluster
