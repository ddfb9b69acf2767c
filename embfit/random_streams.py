"""Streams of random numbers, one for each purpose.

NumPy pads a sequence of seeds with zeros, so (seed, epoch) and (seed, epoch, 0) are the same stream: the order of an
epoch and the draws of its first batch would use the same numbers. Here the purpose is part of the seed.
"""

from __future__ import annotations

import hashlib

import numpy as np


def random_stream(purpose: str, *numbers: int) -> np.random.Generator:
    """Return a random generator that depends on the purpose and on all numbers.

    Args:
        purpose: the name of what is drawn.
        numbers: the seed, and the numbers that distinguish streams of one purpose.
    """
    text = "\0".join([purpose, *map(str, numbers)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "little"))
