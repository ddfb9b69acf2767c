"""How a vector is encoded in bytes: in half precision, in eight bits a value, or as levels of a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from embfit.index.token_vectors.levels import cutoffs_of, digits_per_byte, pack, unpacked

TINY = np.float32(1e-12)


class Payload(Protocol):
    """Encodes rows of floats in bytes and decodes them, each row independently of the others."""

    @property
    def width(self) -> int:
        """Bytes of a row."""

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return [N, D] float32 as [N, width] uint8."""

    @property
    def decoded_width(self) -> int:
        """Values of a row that `decode` writes: D, or a few more if a byte holds several values."""

    def decode(self, packed: np.ndarray, into: np.ndarray) -> np.ndarray:
        """Decode [N, width] uint8 into [N, decoded_width] float32, and return its first columns, the [N, D] rows."""


@dataclass(frozen=True)
class HalfPrecision:
    """Two bytes a dimension.

    Args:
        dim: dimensions of a row.
    """

    dim: int

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return 2 * self.dim

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return [N, D] float32 as [N, width] uint8."""
        return np.ascontiguousarray(rows, "<f2").view(np.uint8)

    @property
    def decoded_width(self) -> int:
        """Values of a row that `decode` writes."""
        return self.dim

    def decode(self, packed: np.ndarray, into: np.ndarray) -> np.ndarray:
        """Decode [N, width] uint8 into [N, D] float32, and return it."""
        into[...] = np.ascontiguousarray(packed).view("<f2")
        return into


@dataclass(frozen=True)
class EightBits:
    """A byte a dimension, in 127 steps on either side of 0 up to the row's largest value; two bytes store the step.

    Args:
        dim: dimensions of a row.
    """

    dim: int

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return 2 + self.dim

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return [N, D] float32 as [N, width] uint8."""
        step = (np.abs(rows).max(axis=1, keepdims=True, initial=0) / 127).astype("<f2")  # [N, 1]
        steps = np.rint(rows / np.maximum(step.astype(np.float32), TINY)).clip(-127, 127).astype(np.int8)
        return np.concatenate([step.view(np.uint8), steps.view(np.uint8)], axis=1)

    @property
    def decoded_width(self) -> int:
        """Values of a row that `decode` writes."""
        return self.dim

    def decode(self, packed: np.ndarray, into: np.ndarray) -> np.ndarray:
        """Decode [N, width] uint8 into [N, D] float32, and return it."""
        step = np.ascontiguousarray(packed[:, :2]).view("<f2").astype(np.float32)  # [N, 1]
        np.multiply(packed[:, 2:].view(np.int8), step, out=into)
        return into


@dataclass(frozen=True)
class Levels:
    """Each value as one of a few levels.

    One table serves all dimensions: a value is divided by its dimension's scale first.

    Args:
        levels: [L] float32, ascending.
        scales: [D] float32, the standard deviation of each dimension.
    """

    levels: np.ndarray
    scales: np.ndarray

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return -(-len(self.scales) // digits_per_byte(len(self.levels)))

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return [N, D] float32 as [N, width] uint8."""
        digits = np.searchsorted(cutoffs_of(self.levels), rows / self.scales).astype(np.uint8)
        return pack(digits, len(self.levels))

    @property
    def decoded_width(self) -> int:
        """Values of a row that `decode` writes."""
        return self.width * digits_per_byte(len(self.levels))

    def decode(self, packed: np.ndarray, into: np.ndarray) -> np.ndarray:
        """Decode [N, width] uint8 into [N, decoded_width] float32, and return its first columns, the [N, D] rows."""
        table = self._table  # [width · 256, P]
        entries = packed + self._begins  # [N, width]
        out = into.reshape(*entries.shape, table.shape[1])
        np.take(table, entries, axis=0, out=out, mode="clip")  # "raise" would buffer `out`
        return into[:, : len(self.scales)]

    @cached_property
    def _begins(self) -> np.ndarray:
        return 256 * np.arange(self.width, dtype=np.intp)

    @cached_property
    def _table(self) -> np.ndarray:
        """The values of each byte at each place of a row ([width · 256, P]), so that a byte takes one look-up."""
        digits = unpacked(len(self.levels))  # [256, P]
        padded = np.pad(self.scales, (0, self.width * digits.shape[1] - len(self.scales)))
        scales = padded.reshape(self.width, 1, -1)  # [width, 1, P]
        table: np.ndarray = (self.levels[digits] * scales).reshape(-1, digits.shape[1]).astype(np.float32)
        return table
