"""How one vector is written into bytes: whole in half precision or in eight bits, or as steps of a table of levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from embfit.index.token_vectors.levels import cutoffs_of, digits_per_byte, pack, unpacked

TINY = np.float32(1e-12)


class Payload(Protocol):
    """Writes rows of floats into bytes and reads them back, each row the same whatever stands beside it."""

    @property
    def width(self) -> int:
        """Bytes of a row."""

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return [N, D] float32 as [N, width] uint8."""

    def decode(self, packed: np.ndarray) -> np.ndarray:
        """Return [N, width] uint8 as [N, D] float32."""


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

    def decode(self, packed: np.ndarray) -> np.ndarray:
        """Return [N, width] uint8 as [N, D] float32."""
        return np.ascontiguousarray(packed).view("<f2").astype(np.float32)


@dataclass(frozen=True)
class EightBits:
    """A byte a dimension, in 127 steps either side of 0 up to the row's largest value, which two more bytes keep.

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

    def decode(self, packed: np.ndarray) -> np.ndarray:
        """Return [N, width] uint8 as [N, D] float32."""
        step = np.ascontiguousarray(packed[:, :2]).view("<f2").astype(np.float32)  # [N, 1]
        decoded: np.ndarray = packed[:, 2:].view(np.int8) * step
        return decoded


@dataclass(frozen=True)
class Levels:
    """Each value as one of a few levels.

    One table serves all dimensions: a value is divided by its dimension's scale first.

    Args:
        levels: [L] float32, ascending.
        scales: [D] float32, how far values of each dimension are spread.
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

    def decode(self, packed: np.ndarray) -> np.ndarray:
        """Return [N, width] uint8 as [N, D] float32."""
        table = self._table  # [width · 256, P]
        entries = packed + self._begins  # [N, width]
        decoded: np.ndarray = table.take(entries, axis=0).reshape(len(packed), -1)[:, : len(self.scales)]
        return decoded

    @cached_property
    def _begins(self) -> np.ndarray:
        return 256 * np.arange(self.width, dtype=np.intp)

    @cached_property
    def _table(self) -> np.ndarray:
        """What each byte stands for at each place of a row, so that reading a byte is one look-up."""
        digits = unpacked(len(self.levels))  # [256, P]
        padded = np.pad(self.scales, (0, self.width * digits.shape[1] - len(self.scales)))
        scales = padded.reshape(self.width, 1, -1)  # [width, 1, P]
        table: np.ndarray = (self.levels[digits] * scales).reshape(-1, digits.shape[1]).astype(np.float32)
        return table
