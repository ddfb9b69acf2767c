"""Streams of random numbers, one for each purpose.

NumPy pads a sequence of seeds with zeros, so (seed, epoch) and (seed, epoch, 0) are one stream: the order of an epoch
and what is drawn in its first batch would come from the same numbers. Here the purpose is part of the seed.
"""

from __future__ import annotations

import hashlib

import numpy as np


def random_stream(purpose: str, *numbers: int) -> np.random.Generator:
    """Return a generator that only the same purpose with the same numbers gives.

    Args:
        purpose: what is drawn.
        numbers: the seed, and what tells streams of one purpose apart.
    """
    text = "\0".join([purpose, *map(str, numbers)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "little"))
