"""The vectors of texts: one for each text (bi-encoder), or one for each kept token (late interaction).

Losses, miners, indexes and the evaluator call these methods and never multiply matrices themselves. So they are
right for any number of vectors; with one vector each, the scores are the plain matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embfit.device_transfer import to_device
from embfit.maxsim import LOWEST as LOWEST  # the score of a document without any vector
from embfit.maxsim import highest_products
from embfit.ragged import Array, gather, owners_of, part_of, take_from

STARTS = "starts.npy"  # beside a file of vectors, if texts have several


@dataclass(frozen=True)
class Vectors(Generic[Array]):
    """The vectors of N texts.

    Args:
        rows: [V, W] all texts' vectors, one text after the other: a NumPy array, possibly memory-mapped, or a tensor
            on any device.
        starts: [N + 1] int64; text i has the vectors `rows[starts[i]:starts[i + 1]]`. None means one vector each.
        dim: the number of dimensions of a NumPy array to keep. They are sliced and renormalised when read, so a file
            stays memory-mapped. None keeps all.
    """

    rows: Array
    starts: np.ndarray | None = None
    dim: int | None = None

    @staticmethod
    def open(path: Path) -> Vectors[np.ndarray]:
        """Open the vectors of a `.npy` file ([V, W]), memory-mapped.

        Args:
            path: the file; if texts have several vectors, `starts.npy` beside it holds the starts.
        """
        starts = path.with_name(STARTS)
        return Vectors(np.load(path, mmap_mode="r"), np.load(starts) if starts.is_file() else None)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.rows) if self.starts is None else len(self.starts) - 1

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return int(self.rows.shape[1]) if self.dim is None else self.dim

    @property
    def single(self) -> bool:
        """Whether every text has one vector."""
        return self.starts is None

    @property
    def counts(self) -> np.ndarray:
        """Vectors of each text ([N] int64)."""
        return np.ones(len(self), np.int64) if self.starts is None else np.diff(self.starts)

    def flat(self) -> Array:
        """Return all vectors in the form in which they are compared: [V, D], cut and renormalised to `dim`."""
        if self.dim is None or isinstance(self.rows, Tensor):
            return self.rows
        return unit_length(np.asarray(self.rows[:, : self.dim], np.float32))

    def part(self, start: int, stop: int) -> Vectors[Array]:
        """Return the texts from `start` up to `stop`, without copying their vectors."""
        if self.starts is None:
            return replace(self, rows=self.rows[start:stop])
        rows, starts = part_of(self.rows, self.starts, start, stop)
        return replace(self, rows=rows, starts=starts)

    def chunks(self, most: int) -> Iterator[tuple[int, Vectors[Array]]]:
        """Yield all texts in parts of at most `most` vectors, each with the number of its first text.

        A text that alone has more vectors is a part of its own.
        """
        start = 0
        while start < len(self):
            if self.starts is None:
                stop = min(start + most, len(self))
            else:
                stop = max(start + 1, int(np.searchsorted(self.starts, self.starts[start] + most, "right")) - 1)
            yield start, self.part(start, stop)
            start = stop

    def take(self, texts: np.ndarray | Sequence[int]) -> Vectors[Array]:
        """Return some texts, in the order given and as often as they are named."""
        chosen = np.asarray(texts, np.int64)
        if self.starts is None:
            return replace(self, rows=gather(self.rows, chosen))
        rows, starts = take_from(self.rows, self.starts, chosen)
        return replace(self, rows=rows, starts=starts)

    def cut(self, dim: int) -> Vectors[Array]:
        """Return the first `dim` dimensions, renormalised (Matryoshka); the full width is returned unchanged.

        Raises:
            ValueError: there are fewer dimensions.
        """
        if not 1 <= dim <= self.width:
            raise ValueError(f"dim={dim} is not between 1 and the vectors' {self.width} dimensions")
        if dim == self.width:
            return self
        if isinstance(self.rows, Tensor):
            return replace(self, rows=functional.normalize(self.rows[:, :dim], dim=-1))
        return replace(self, dim=dim)

    def normalised(self) -> Vectors[Array]:
        """Return the vectors at length 1; those of a NumPy array are normalised when they are read."""
        if isinstance(self.rows, Tensor):
            return replace(self, rows=functional.normalize(self.rows, dim=-1))
        return replace(self, dim=self.width)

    def means(self) -> Array:
        """Return the mean of each text's vectors ([N, D]); with one vector each, the vectors themselves."""
        return self.flat() if self.starts is None else _mean(self.flat(), self.starts)

    def scores(self, documents: Vectors[Array]) -> Array:
        """Score every text, as a query, against every document: [Q, D].

        With one vector each the score is the inner product. With several it is the mean over the query's vectors of
        the highest inner product with a vector of the document (MaxSim, Khattab and Zaharia 2020, section 3.3, divided
        by the number of query vectors, so that temperatures keep their meaning). A document without vectors scores
        -inf; a query without vectors scores 0.

        Gradients flow through tensors.
        """
        asked, read = self.flat(), documents.flat()
        if documents.starts is None:
            best: Array = asked @ read.T  # [Vq, D]
        elif isinstance(asked, Tensor):
            best = highest_products(asked, read, documents.starts)
        else:
            best = _highest(asked @ read.T, documents.starts)
        return best if self.starts is None else _mean(best, self.starts)  # [Q, D]

    def combined(self: Vectors[np.ndarray], pairs: np.ndarray, documents: Vectors[np.ndarray]) -> np.ndarray:
        """Return the scores of texts from the inner products of their vectors: [Vq, Vd] → [Q, D], as `scores`."""
        best = pairs if documents.starts is None else _highest(pairs, documents.starts)  # [Vq, D]
        return best if self.starts is None else _mean(best, self.starts)  # [Q, D]


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [..., D] scaled to length 1; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    normalised: np.ndarray = vectors / np.maximum(norms, np.finfo(vectors.dtype).tiny)
    return normalised


def _highest(pairs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return each document's highest score with each query vector: [Vq, Vd] → [Vq, D]."""
    best = np.full((len(pairs), len(starts) - 1), LOWEST, pairs.dtype)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        best[:, filled] = np.maximum.reduceat(pairs, starts[filled], axis=1)
    return best


def _mean(best: Array, starts: np.ndarray) -> Array:
    """Return the mean over each query's vectors: [Vq, D] → [Q, D]."""
    counts = np.diff(starts)
    owner = owners_of(starts)  # [Vq]
    if isinstance(best, Tensor):
        sums = best.new_zeros((len(counts), best.shape[1]))
        sums = sums.index_add(0, to_device(torch.from_numpy(owner), best.device), best)
        return sums / to_device(torch.from_numpy(counts), best.device).to(sums.dtype).clamp(min=1)[:, None]
    means = np.zeros((len(counts), best.shape[1]), best.dtype)
    np.add.at(means, owner, best)
    means /= np.maximum(counts, 1).astype(best.dtype)[:, None]
    return means
