"""Vectors in less memory: cut to fewer dimensions, eight bits a dimension, or one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from embfit.atomic_files import replacing
from embfit.index.files import read_settings, write_settings
from embfit.index.inner_products import inner_products
from embfit.index.protocol import Hits, check_depth, check_single
from embfit.index.rescoring import contiguous, longest_vectors, prepare_queries
from embfit.store import digest
from embfit.vectors import Vectors

Format: TypeAlias = Literal["float32", "int8", "binary"]
"""How a dimension is stored: in four bytes, in one (in steps from the least to the greatest value), or as its sign."""

FORMATS: tuple[Format, ...] = get_args(Format)
CHUNK = 32_768  # documents converted at once
TRAINED_ON = 65_536  # documents, at most, whose values set the range of int8
FILE = "compressed.faiss"


def bytes_per_document(dim: int, form: Format) -> int:
    """Return the bytes that one vector takes."""
    return {"float32": 4 * dim, "int8": dim, "binary": -(-dim // 8)}[form]


class CompressedIndex:
    """Vectors in one of the formats, in memory, searched exhaustively.

    Args:
        index: faiss's index, which holds the vectors.
        form: how they are stored.
        width: dimensions of a vector.
        source: identifies what made the vectors (`Embeddings.fingerprint`).
    """

    def __init__(self, index: Any, form: Format, width: int, source: str = "") -> None:
        self.index = index
        self.form = form
        self.width = width
        self.source = source

    @classmethod
    def build(cls, documents: Vectors[np.ndarray], form: Format, source: str = "") -> CompressedIndex:
        """Convert vectors, which are read once, in chunks.

        Args:
            documents: one vector each.
            form: how to store them.
            source: identifies what made the vectors.

        Raises:
            ValueError: documents have several vectors each, or a vector is not finite.
        """
        import faiss  # takes a third of a second to import

        check_single(documents.single, "a compressed index")
        width = documents.width
        index: Any
        if form == "binary":
            index = faiss.IndexBinaryFlat(8 * bytes_per_document(width, form))
        elif form == "int8":
            index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
            step = -(-len(documents) // TRAINED_ON)
            index.train(_converted(replace(documents, rows=documents.rows[::step]).flat(), form))
        else:
            index = faiss.IndexFlatIP(width)
        for start, chunk in documents.chunks(CHUNK):
            read = contiguous(chunk)
            longest_vectors(read, "documents", start)
            index.add(_converted(read.rows, form))
        return cls(index, form, width, source)

    def __len__(self) -> int:
        """Return the number of documents."""
        return int(self.index.ntotal)

    @property
    def fingerprint(self) -> str:
        """Identifies the documents' vectors, their dimensions, and the format."""
        return digest({"search": "compressed", "format": self.form, "vectors": self.source, "dim": self.width})

    def search(self, queries: Vectors[np.ndarray], k: int, label: str | None = None) -> Hits:
        """Return each query's k best documents by (-score, row); of those that tie at the last rank, any may appear.

        A binary score is the number of dimensions with equal signs minus the number with unequal ones. The search is a
        single step, so it shows no progress.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64.

        Raises:
            ValueError: k is not between 1 and the number of documents, the widths differ, or a query is not finite.
        """
        check_depth(k, len(self))
        queries, _ = prepare_queries(queries, self.width)
        found, rows = self.index.search(_converted(queries.rows, self.form), k)
        scores = self.width - 2 * found if self.form == "binary" else found
        order = np.lexsort((rows, -scores))
        return (
            np.take_along_axis(scores, order, axis=1).astype(np.float32),
            np.take_along_axis(rows, order, axis=1).astype(np.int64),
        )

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""
        import faiss

        unique = np.unique(rows[rows >= 0])
        places = np.where(rows < 0, rows, np.searchsorted(unique, rows))
        if self.form != "binary":
            return inner_products(queries.flat(), self.index.reconstruct_batch(unique), places)
        stored = faiss.vector_to_array(self.index.xb).reshape(len(self), -1)[unique]  # [U, bytes]
        given = _converted(queries.flat(), self.form)
        signs = [np.unpackbits(codes, axis=1, count=self.width) for codes in (given, stored)]
        # 1 and -1, so that the inner product is the number of equal signs minus that of unequal ones
        query_signs, document_signs = (2 * bits.astype(np.float32) - 1 for bits in signs)
        return inner_products(query_signs, document_signs, places)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        self.write_codes(folder)
        write_settings(folder, "compressed", {"format": self.form, "width": self.width, "source": self.source})

    @classmethod
    def load(cls, folder: Path) -> CompressedIndex:
        """Open a saved index."""
        settings = read_settings(folder)
        return cls.read_codes(folder, settings["format"], settings["width"], settings["source"])

    def write_codes(self, folder: Path) -> None:
        """Write the vectors into a folder, without the settings."""
        import faiss

        write = faiss.write_index_binary if self.form == "binary" else faiss.write_index
        with replacing(folder / FILE) as path:
            write(self.index, str(path))

    @classmethod
    def read_codes(cls, folder: Path, form: Format, width: int, source: str) -> CompressedIndex:
        """Read what `write_codes` wrote; the arguments are those of the index that wrote it."""
        import faiss

        read = faiss.read_index_binary if form == "binary" else faiss.read_index
        return cls(read(str(folder / FILE)), form, width, source)


def _converted(vectors: np.ndarray, form: Format) -> np.ndarray:
    """Return vectors in the layout that faiss expects for a format."""
    if form == "binary":
        return np.packbits(np.asarray(vectors) > 0, axis=1)  # [N, D] → [N, ⌈D / 8⌉]; bits beyond D are 0 in all
    return np.ascontiguousarray(vectors, np.float32)
