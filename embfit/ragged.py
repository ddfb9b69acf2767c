"""Lists of different lengths in one flat array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """List i is `values[offsets[i]:offsets[i + 1]]`.

    Args:
        values: all lists' values, one after the other.
        offsets: [lists + 1] int64, from 0 to the number of values.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, lists: Iterable[Sequence[int] | np.ndarray]) -> Ragged:
        """Join lists of integers."""
        arrays = [np.asarray(values, np.int64) for values in lists]
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)
        return cls(np.concatenate([np.zeros(0, np.int64), *arrays]), offsets)

    @classmethod
    def from_owners(cls, values: np.ndarray, owners: np.ndarray, count: int) -> Ragged:
        """Make `count` lists of values whose owners (the list each belongs to) are in ascending order."""
        return cls(values, np.searchsorted(owners, np.arange(count + 1)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Values in each list."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> np.ndarray:
        """For each value, the number of its list."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def part(self, start: int, stop: int) -> Ragged:
        """Return lists `start` to `stop`, without copying their values."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, rows: np.ndarray) -> Ragged:
        """Return some lists, in the order given and as often as they are named."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]  # not `self.lengths`, which are those of all lists
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[rows], lengths) + within], offsets)

    def sample(self, most: int, generator: np.random.Generator) -> Ragged:
        """Return at most so many values of each list, any with equal chance, in the order that they had."""
        order = np.lexsort((generator.random(len(self.values)), self.owners))  # shuffled within each list
        place = np.arange(len(order)) - np.repeat(self.offsets[:-1], self.lengths)
        kept = np.sort(order[place < most])
        return Ragged.from_owners(self.values[kept], self.owners[kept], len(self))

    def lists(self) -> list[np.ndarray]:
        """Return the lists one by one, as views."""
        return np.split(self.values, self.offsets[1:-1]) if len(self) else []
