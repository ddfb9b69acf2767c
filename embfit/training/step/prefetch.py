"""Prepares the next step's data while the current step computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """Items by number, each made on a thread while the one before it is used.

    Args:
        make: makes the item of a number.
        numbers: the items' numbers, in order.
    """

    def __init__(self, make: Callable[[int], Item], numbers: Sequence[int]) -> None:
        self.make = make
        self.numbers = numbers

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[Item]:
        """Yield the items; an exception in making an item is raised when that item is due."""
        with ThreadPoolExecutor(1) as thread:
            pending = [thread.submit(self.make, number) for number in self.numbers[:1]]
            for place in range(len(self.numbers)):
                item = pending.pop().result()
                pending += [thread.submit(self.make, number) for number in self.numbers[place + 1 : place + 2]]
                yield item
