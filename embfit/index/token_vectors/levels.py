"""Scalar quantisation: one table of levels for all values, and level numbers packed into bytes."""

from __future__ import annotations

import math

import numpy as np

ROUNDS = 100  # of Lloyd's algorithm, at most; it stops at convergence


def fit_levels(values: np.ndarray, count: int) -> np.ndarray:
    """Return the levels that approximate values with the least squared error (Lloyd 1982; Max 1960).

    Levels start at quantiles of the values. With three levels the middle one covers a wide zone around 0, as in
    dead-zone quantisation; with two they are the means of the two halves.

    Args:
        values: the values to approximate, any shape.
        count: how many levels there are.

    Returns:
        [count] float32, ascending.
    """
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    for _ in range(ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(ordered, cutoffs_of(levels), "right"), [len(ordered)]])
        sizes = np.diff(ends)
        moved = np.where(sizes > 0, np.diff(sums[ends]) / np.maximum(sizes, 1), levels)  # a level without values stays
        if np.array_equal(moved, levels):
            break
        levels = moved
    return levels.astype(np.float32)


def cutoffs_of(levels: np.ndarray) -> np.ndarray:
    """Return the boundaries between the values of neighbouring levels: [L] → [L - 1]."""
    found: np.ndarray = (levels[1:] + levels[:-1]) / 2
    return found


def digits_per_byte(count: int) -> int:
    """Return how many values fit into a byte, for a number of levels: 2 for 16, 4 for 4, 5 for 3."""
    return int(math.log(256) / math.log(count) + 1e-9)


def pack(digits: np.ndarray, count: int) -> np.ndarray:
    """Pack level numbers into bytes, as digits to the base `count`; a byte's first digit is its lowest.

    Args:
        digits: [N, D] uint8, each below `count`.
        count: how many levels there are.

    Returns:
        [N, ⌈D / P⌉] uint8, where P values fit into a byte.
    """
    per_byte = digits_per_byte(count)
    missing = -digits.shape[1] % per_byte
    padded = np.pad(digits, ((0, 0), (0, missing)))
    grouped = padded.reshape(len(padded), padded.shape[1] // per_byte, per_byte)
    packed = grouped[..., -1].astype(np.uint8)
    for place in range(per_byte - 2, -1, -1):
        packed = packed * np.uint8(count) + grouped[..., place]
    return packed


def unpacked(count: int) -> np.ndarray:
    """Return the digits of each byte: [256, P] uint8; bytes that `pack` never produces repeat the digits of others."""
    per_byte = digits_per_byte(count)
    values = np.arange(256)[:, None] // count ** np.arange(per_byte)
    return (values % count).astype(np.uint8)
