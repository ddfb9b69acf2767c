"""Which examples share a batch: drawn for each epoch, and the same on all ranks and machines for the same generator.

In-batch negatives come from the batch, so the grouping decides how hard they are. All groupings cut examples into
batches of nearly equal size: a small remainder would have few negatives and so an easier task.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol, TypeAlias

import numpy as np

Batching: TypeAlias = Literal["random", "by_document", "by_source", "topical"]

GRID = 127  # vectors are rounded to integers of at most this size
EXACT = 1024  # dimensions whose integer products float32 sums exactly (1024 * 127**2 < 2**24)
SAMPLE = 256  # sampled vectors that decide how a set is cut in two
ROUNDS = 4  # rounds of 2-means on the sample
BLOCK = 65_536  # vectors projected at a time


class Grouping(Protocol):
    """Cuts an epoch into batches."""

    @property
    def digest(self) -> str:
        """Identifies everything that the batches depend on, except the generator."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches, in order, as example numbers; each example is in one of them."""


class RandomGrouping:
    """Examples in random order.

    Args:
        examples: how many examples there are.
        batch_size: how many of them a batch has, at most.
    """

    def __init__(self, examples: int, batch_size: int) -> None:
        self.examples = examples
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies everything that the batches depend on, except the generator."""
        return f"random {self.batch_size}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.examples // self.batch_size)

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: one shuffle, cut evenly."""
        return np.array_split(generator.permutation(self.examples), len(self))


class ByDocument:
    """Queries of one document together: the document is encoded once and is the positive of each.

    Args:
        documents: [N] the row of each example's first positive.
        batch_size: how many examples a batch has, at most.
    """

    def __init__(self, documents: np.ndarray, batch_size: int) -> None:
        self.documents = documents
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies everything that the batches depend on, except the generator."""
        return f"by_document {self.batch_size} {_digest(self.documents)}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.documents) // self.batch_size)

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: documents in random order, their queries cut evenly."""
        numbers = np.unique(self.documents, return_inverse=True)[1]
        places = generator.permutation(len(self.documents))[numbers]  # a random position for each document
        return np.array_split(np.argsort(places, kind="stable"), len(self))


class BySource:
    """Examples of one source together, so that the source never reveals which documents are negatives.

    Args:
        sources: [N] the number of each example's source.
        batch_size: how many examples a batch has, at most.
    """

    def __init__(self, sources: np.ndarray, batch_size: int) -> None:
        self.sources = sources
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies everything that the batches depend on, except the generator."""
        return f"by_source {self.batch_size} {_digest(self.sources)}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        counts = np.unique(self.sources, return_counts=True)[1]
        return int(sum(-(-counts // self.batch_size)))

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: each source shuffled and cut evenly, then the batches of all sources shuffled."""
        batches = []
        for source in np.unique(self.sources):
            rows = generator.permutation(np.flatnonzero(self.sources == source))
            batches += np.array_split(rows, -(-len(rows) // self.batch_size))
        return [batches[place] for place in generator.permutation(len(batches))]


class Topical:
    """Examples with similar queries together, so that they have each other's positives as hard negatives.

    The examples are cut in two along the difference of two means of a sample, and each part again, until the parts have
    the size of a batch: balanced clusters at the cost of a sort (N log N). Each epoch draws other samples, so other
    batches. All sums are of integers and exact in any order, so ranks on different machines get the same batches.

    Args:
        vectors: [N, D] float32, a vector of each example's query.
        batch_size: how many examples a batch has, at most.
    """

    def __init__(self, vectors: np.ndarray, batch_size: int) -> None:
        self.vectors = _on_grid(vectors)
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Identifies everything that the batches depend on, except the generator."""
        return f"topical {self.batch_size} {_digest(self.vectors)}"

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.vectors) // self.batch_size)

    def draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Return an epoch's batches: clusters of equal size, in random order."""
        rows = generator.permutation(len(self.vectors))
        batches = self._cut(rows, [len(part) for part in np.array_split(rows, len(self))], generator)
        return [batches[place] for place in generator.permutation(len(batches))]

    def _cut(self, rows: np.ndarray, sizes: list[int], generator: np.random.Generator) -> list[np.ndarray]:
        """Cut rows into parts of given sizes, with similar rows in the same part."""
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
        """Return the difference of two means of a sample, as integers ([D])."""
        sample = self._floats(generator.choice(rows, min(SAMPLE, len(rows)), replace=False))  # [S, D]
        first = sample[0]
        second = sample[(sample @ first).argmin()]
        direction = first - second
        for _ in range(ROUNDS):
            places = sample @ _on_grid(direction).astype(sample.dtype)
            upper = places > np.median(places)
            if not upper.any():  # all vectors are equal
                break
            direction = sample[upper].mean(axis=0, dtype=np.float64) - sample[~upper].mean(axis=0, dtype=np.float64)
        return _on_grid(direction).astype(sample.dtype)

    def _floats(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors in a type that sums their products exactly."""
        floats: np.ndarray = self.vectors[rows].astype(np.float32 if self.vectors.shape[1] <= EXACT else np.float64)
        return floats


def _on_grid(vectors: np.ndarray) -> np.ndarray:
    """Return vectors ([N, D] or [D]) rounded to integers of at most `GRID` (int8)."""
    scale = GRID / max(float(vectors.max()), -float(vectors.min()), 1e-30)
    whole = np.empty(vectors.shape, np.int8)
    for start in range(0, len(vectors), BLOCK):  # a copy of all in floats would be as large as the vectors
        block = slice(start, start + BLOCK)
        whole[block] = np.rint(vectors[block] * scale)
    return whole


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
