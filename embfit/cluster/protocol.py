"""Work that is spread over workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Do: TypeAlias = Callable[[Any], Any]
"""A function that does one part of a work: the part's input → its result, both of which can be pickled."""


class Work(Protocol):
    """What a worker needs for any part of some work, such as a model; it is pickled, and sent to each worker once."""

    def prepare(self, device: str) -> Do:
        """Return what does a part on a worker's device, by PyTorch's name."""
