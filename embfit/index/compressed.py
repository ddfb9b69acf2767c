"""Vectors in less memory: cut to fewer dimensions, eight bits a dimension, or one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import faiss
import numpy as np

from embfit.index.inner_products import best, inner_products

Format: TypeAlias = Literal["float32", "int8", "binary"]
"""How a dimension is kept: in four bytes, in one (a step between the least and greatest value seen), or as its sign."""

FORMATS: tuple[Format, ...] = get_args(Format)
CHUNK = 32_768  # documents converted at once
TRAINED_ON = 65_536  # documents whose values set the range of int8


class Rows(Protocol):
    """Vectors that can be read a part at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and dimensions."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Cut:
    """The first `dim` dimensions of vectors, renormalised as they are read: a matrix on disk stays there.

    Args:
        matrix: [N, D] floats, possibly memory-mapped.
        dim: dimensions kept, at most D. At full width vectors are as they are.
    """

    matrix: np.ndarray
    dim: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions kept."""
        return len(self.matrix), self.dim

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen: np.ndarray = self.matrix[rows]
        if self.dim == self.matrix.shape[1]:
            return chosen
        return unit_length(np.asarray(chosen[..., : self.dim], np.float32))


@dataclass(frozen=True)
class UnitLength:
    """Vectors normalised as they are read.

    Args:
        matrix: [N, D] floats, possibly memory-mapped.
    """

    matrix: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and dimensions."""
        return self.matrix.shape

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return unit_length(np.asarray(self.matrix[rows], np.float32))


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [..., D] of length 1; a zero vector stays one."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    normalised: np.ndarray = vectors / np.maximum(norms, np.finfo(vectors.dtype).tiny)
    return normalised


def bytes_per_document(dim: int, form: Format) -> int:
    """Return the bytes that one vector takes."""
    return {"float32": 4 * dim, "int8": dim, "binary": -(-dim // 8)}[form]


class CompressedIndex:
    """Vectors in one of the formats, in memory, searched exhaustively.

    Args:
        documents: [N, D] floats, read once, in chunks.
        form: how they are kept.
    """

    def __init__(self, documents: Rows, form: Format) -> None:
        width = documents.shape[1]
        self.form = form
        self.index: Any
        if form == "binary":
            self.index = faiss.IndexBinaryFlat(8 * bytes_per_document(width, form))
        elif form == "int8":
            self.index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
            step = -(-len(documents) // TRAINED_ON)
            self.index.train(np.ascontiguousarray(documents[::step], np.float32))
        else:
            self.index = faiss.IndexFlatIP(width)
        for start in range(0, len(documents), CHUNK):
            self.index.add(self._kept(documents[start : start + CHUNK]))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each query's k best documents by (-score, row); which of several that tie at the last rank is open.

        Binary scores are the dimensions with the same sign less those with another.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64.

        Raises:
            ValueError: k is not between 1 and the number of documents.
        """
        if not 1 <= k <= self.index.ntotal:
            raise ValueError(f"k={k} is not between 1 and the index's {self.index.ntotal} documents")
        found, rows = self.index.search(self._kept(queries), k)
        scores = queries.shape[1] - 2 * found if self.form == "binary" else found
        order = np.lexsort((rows, -scores))
        return (
            np.take_along_axis(scores, order, axis=1).astype(np.float32),
            np.take_along_axis(rows, order, axis=1).astype(np.int64),
        )

    def _kept(self, vectors: np.ndarray) -> np.ndarray:
        if self.form == "binary":
            return np.packbits(np.asarray(vectors) > 0, axis=1)  # [N, D] → [N, ⌈D / 8⌉]; bits beyond D are 0 in all
        return np.ascontiguousarray(vectors, np.float32)


def rescore(queries: np.ndarray, documents: Rows, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank each query's shortlist anew by inner product with whole vectors, by (-score, row).

    Args:
        queries: [Q, D] floats.
        documents: [N, D] floats; only the shortlisted rows are read.
        rows: [Q, S] shortlisted rows.
        k: documents kept for each query, at most S.

    Returns:
        scores [Q, k] float32 and rows [Q, k].
    """
    scores = np.empty(rows.shape, np.float32)
    for query, shortlist in enumerate(rows):
        one = slice(query, query + 1)
        scores[one] = inner_products(queries[one], documents[shortlist], np.arange(len(shortlist))[None])
    return best(scores, rows, k)
