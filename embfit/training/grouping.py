"""Which examples share a batch: drawn again for each epoch, the same for the same generator on every rank and machine.

In-batch negatives come from the batch, so who is in it decides how hard they are. All groupings cut examples into
batches of nearly equal size: a small remainder, with its few negatives, would be another task.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol, TypeAlias

import numpy as np

Batching: TypeAlias = Literal["random", "by_document", "by_source", "topical"]

GRID = 127  # vectors become whole numbers up to this
EXACT = 1024  # dimensions whose products of such numbers a float32 sums without rounding (1024 * 127**2 < 2**24)
SAMPLE = 256  # vectors that decide how a set of them is cut in two
ROUNDS = 4  # of two-means on the sample
BLOCK = 65_536  # vectors projected at a time


class Grouping(Protocol):
    """Cuts an epoch into batches."""

    @property
    def digest(self) -> str:
        """Identifies all that the batches depend on besides the generator."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches, in order, as example numbers; each example is in one of them."""


class RandomGrouping:
    """Any examples together.

    Args:
        examples: how many examples there are.
        batch_size: how many of them a batch has, at most.
    """

    def __init__(self, examples: int, batch_size: int) -> None:
        self.examples = examples
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies all that the batches depend on besides the generator."""
        return f"random {self.batch_size}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.examples // self.batch_size)

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: one shuffle, cut evenly."""
        return np.array_split(generator.permutation(self.examples), len(self))


class ByDocument:
    """Queries of one document together: it is encoded once for all of them, and is the positive of each.

    Args:
        documents: [N] the row of each example's first positive.
        batch_size: how many examples a batch has, at most.
    """

    def __init__(self, documents: np.ndarray, batch_size: int) -> None:
        self.documents = documents
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies all that the batches depend on besides the generator."""
        return f"by_document {self.batch_size} {_digest(self.documents)}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.documents) // self.batch_size)

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: documents in any order, their queries cut evenly."""
        numbers = np.unique(self.documents, return_inverse=True)[1]
        places = generator.permutation(len(self.documents))[numbers]  # one random place for each document
        return np.array_split(np.argsort(places, kind="stable"), len(self))


class BySource:
    """Examples of one source together, so that a negative never gives itself away by where it comes from.

    Args:
        sources: [N] the number of each example's source.
        batch_size: how many examples a batch has, at most.
    """

    def __init__(self, sources: np.ndarray, batch_size: int) -> None:
        self.sources = sources
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies all that the batches depend on besides the generator."""
        return f"by_source {self.batch_size} {_digest(self.sources)}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        counts = np.unique(self.sources, return_counts=True)[1]
        return int(sum(-(-counts // self.batch_size)))

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: each source shuffled and cut evenly, and batches of all sources in any order."""
        batches = []
        for source in np.unique(self.sources):
            rows = generator.permutation(np.flatnonzero(self.sources == source))
            batches += np.array_split(rows, -(-len(rows) // self.batch_size))
        return [batches[place] for place in generator.permutation(len(batches))]


class Topical:
    """Examples of near queries together, so that the positives of neighbours are hard negatives.

    The examples are cut in two across the direction in which two means of a sample differ, and each part again, until
    parts are batches: balanced clusters for the price of a sort (N log N). Another sample in each epoch gives other
    borders. All sums are of whole numbers, exact in any order: ranks on different machines come to the same batches.

    Args:
        vectors: [N, D] float32, a vector of each example's query.
        batch_size: how many examples a batch has, at most.
    """

    def __init__(self, vectors: np.ndarray, batch_size: int) -> None:
        self.vectors = _on_grid(vectors)
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies all that the batches depend on besides the generator."""
        return f"topical {self.batch_size} {_digest(self.vectors)}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.vectors) // self.batch_size)

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: clusters of equal size, in any order."""
        rows = generator.permutation(len(self.vectors))
        batches = self._cut(rows, [len(part) for part in np.array_split(rows, len(self))], generator)
        return [batches[place] for place in generator.permutation(len(batches))]

    def _cut(self, rows: np.ndarray, sizes: list[int], generator: np.random.Generator) -> list[np.ndarray]:
        """Cut rows into parts of given sizes, near ones together."""
        if len(sizes) == 1:
            return [rows]
        half = len(sizes) // 2
        direction = self._direction(rows, generator)
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
        places = np.concatenate([self._floats(block) @ direction for block in blocks])  # [rows]
        ordered = rows[np.argsort(places, kind="stable")]
        middle = sum(sizes[:half])
        return [
            *self._cut(ordered[:middle], sizes[:half], generator),
            *self._cut(ordered[middle:], sizes[half:], generator),
        ]

    def _direction(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the difference of two means of a sample, in whole numbers ([D])."""
        sample = self._floats(generator.choice(rows, min(SAMPLE, len(rows)), replace=False))  # [S, D]
        first = sample[0]
        second = sample[(sample @ first).argmin()]
        direction = first - second
        for _ in range(ROUNDS):
            places = sample @ _on_grid(direction).astype(sample.dtype)
            upper = places > np.median(places)
            if not upper.any():  # all of them are alike
                break
            direction = sample[upper].mean(axis=0, dtype=np.float64) - sample[~upper].mean(axis=0, dtype=np.float64)
        return _on_grid(direction).astype(sample.dtype)

    def _floats(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors in a type that sums their products without rounding."""
        floats: np.ndarray = self.vectors[rows].astype(np.float32 if self.vectors.shape[1] <= EXACT else np.float64)
        return floats


def _on_grid(vectors: np.ndarray) -> np.ndarray:
    """Return vectors ([N, D] or [D]) as whole numbers of at most `GRID` (int8)."""
    scale = GRID / max(float(vectors.max()), -float(vectors.min()), 1e-30)
    whole = np.empty(vectors.shape, np.int8)
    for start in range(0, len(vectors), BLOCK):  # a copy of all in floats would be as large as the vectors
        block = slice(start, start + BLOCK)
        whole[block] = np.rint(vectors[block] * scale)
    return whole


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
