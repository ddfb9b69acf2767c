"""Lists of different lengths in one flat array: lists of rows (`Ragged`), texts' tokens and texts' vectors.

List i is `values[offsets[i]:offsets[i + 1]]`. Only the functions here slice and index such lists. They
work on NumPy arrays, memory-mapped or not, and on tensors, with gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", np.ndarray, "Tensor")

LONG = 16  # mean length of lists from which copying list by list is faster than by index


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return where lists of some lengths begin, and where the last one ends ([lists + 1] int64)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def part_of(values: Array, offsets: np.ndarray, start: int, stop: int) -> tuple[Array, np.ndarray]:
    """Return values and offsets of the lists from `start` up to `stop`, without copying their values."""
    some = offsets[start : stop + 1]
    return values[int(some[0]) : int(some[-1])], some - some[0]


def take_from(values: Array, offsets: np.ndarray, rows: np.ndarray) -> tuple[Array, np.ndarray]:
    """Return values and offsets of some lists, in the order given and as often as they are named."""
    found = offsets_of(lengths_of(offsets, rows))
    if isinstance(values, np.ndarray) and found[-1] >= LONG * len(rows) > 0:
        plain = np.asarray(values)  # slicing a memory map takes ten times as long
        ends = zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
        return np.concatenate([plain[start:end] for start, end in ends]), found
    return gather(values, places_of(offsets, rows)), found


def lengths_of(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the lengths of some lists; this reads only their offsets."""
    found: np.ndarray = offsets[rows + 1] - offsets[rows]
    return found


def places_of(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the indices of some lists' values in the flat array, one list after the other ([values] int64)."""
    counts = lengths_of(offsets, rows)
    ends = np.cumsum(counts)
    found: np.ndarray = np.arange(counts.sum()) + np.repeat(offsets[rows] - (ends - counts), counts)
    return found


def owners_of(offsets: np.ndarray) -> np.ndarray:
    """Return, for each value, the number of its list."""
    found: np.ndarray = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return found


def gather(values: Array, where: np.ndarray) -> Array:
    """Return the values at some indices of a flat array."""
    if isinstance(values, np.ndarray):
        found: np.ndarray = values[where]
        return found
    import torch  # not at the top: lists of rows do not need torch

    from embfit.device_transfer import to_device

    return values[to_device(torch.from_numpy(where), values.device)]


@dataclass(frozen=True)
class Ragged:
    """Lists of values in one array.

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
        offsets = offsets_of([len(array) for array in arrays])
        return cls(np.concatenate([np.zeros(0, np.int64), *arrays]), offsets)

    @classmethod
    def from_owners(cls, values: np.ndarray, owner: np.ndarray, count: int) -> Ragged:
        """Make `count` lists of values; `owner` names the list of each value, in ascending order."""
        return cls(values, np.searchsorted(owner, np.arange(count + 1)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Values in each list."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> np.ndarray:
        """For each value, the number of its list."""
        return owners_of(self.offsets)

    @property
    def within(self) -> np.ndarray:
        """For each value, its index within its own list."""
        found: np.ndarray = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        return found

    def part(self, start: int, stop: int) -> Ragged:
        """Return the lists from `start` up to `stop`, without copying their values."""
        return Ragged(*part_of(self.values, self.offsets, start, stop))

    def take(self, rows: np.ndarray) -> Ragged:
        """Return some lists, in the order given and as often as they are named."""
        return Ragged(*take_from(self.values, self.offsets, rows))

    def sample(self, most: int, generator: np.random.Generator) -> Ragged:
        """Return a random sample of at most `most` values of each list, in their order."""
        order = np.lexsort((generator.random(len(self.values)), self.owners))  # shuffled within each list
        place = self.within
        kept = np.sort(order[place < most])
        return Ragged.from_owners(self.values[kept], self.owners[kept], len(self))

    def lists(self) -> list[np.ndarray]:
        """Return the lists one by one, as views."""
        return np.split(self.values, self.offsets[1:-1]) if len(self) else []
