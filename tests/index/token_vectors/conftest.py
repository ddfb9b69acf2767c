"""Documents of several vectors each, near a few directions as those of real tokens are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embfit.ragged import offsets_of
from embfit.vectors import Vectors, unit_length

WIDTH = 16


def texts(counts: Sequence[int] | np.ndarray, seed: int = 0, width: int = WIDTH) -> Vectors[np.ndarray]:
    """Return texts of so many vectors each."""
    directions = np.random.default_rng(99).standard_normal((40, width), np.float32)
    random = np.random.default_rng(seed)
    total = int(np.sum(counts))
    rows = directions[random.integers(0, 40, total)] + 0.5 * random.standard_normal((total, width), np.float32)
    return Vectors(unit_length(rows), offsets_of(counts))


def several(documents: int, seed: int = 0, most: int = 12) -> Vectors[np.ndarray]:
    """Return documents of one to `most` vectors each."""
    return texts(np.random.default_rng(seed).integers(1, most + 1, documents), seed)


def joined(*parts: Vectors[np.ndarray]) -> Vectors[np.ndarray]:
    """Return the texts of several parts, one after the other."""
    return Vectors(
        np.concatenate([part.rows for part in parts]), offsets_of(np.concatenate([part.counts for part in parts]))
    )


def max_sim(query: np.ndarray, document: np.ndarray) -> float:
    """Return the mean over the query's vectors of the highest inner product, in double precision."""
    return float((query.astype(float) @ document.astype(float).T).max(axis=1).mean())
