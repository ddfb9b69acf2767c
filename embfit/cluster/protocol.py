"""The interface of work that is distributed over workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Do: TypeAlias = Callable[[Any], Any]
"""A function that does one part of a work: the part's input → its result, both of which can be pickled."""


class Work(Protocol):
    """Everything that a worker needs for the parts of a work, such as a model; pickled and sent to each worker once."""

    def prepare(self, device: str) -> Do:
        """Return the function that computes a part on a worker's device (PyTorch's name)."""
