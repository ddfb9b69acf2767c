"""The documents of an open index: found by row, decoded, and proposed by their centroids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from embfit.index.token_vectors.codec import DecodingMemory, TokenCodec
from embfit.index.token_vectors.postings import propose
from embfit.index.token_vectors.segment import CHUNK, Segment
from embfit.ragged import offsets_of
from embfit.vectors import Vectors

BLOCK = 3_072  # vectors decoded at once for scoring: 1.5 megabytes at 128 dimensions, which fit the CPU's cache


class EncodedDocuments:
    """The documents of consecutive segments, some of them deleted.

    Args:
        codec: decodes their vectors.
        segments: the segments, in the order of their rows.
        deleted: the rows of deleted documents.
    """

    def __init__(self, codec: TokenCodec, segments: Sequence[Segment], deleted: np.ndarray) -> None:
        self.codec = codec
        self.segments = segments
        self.bounds = offsets_of([len(segment) for segment in segments])  # the first row of each segment, and the end
        self.alive = np.ones(int(self.bounds[-1]), bool)  # by row
        self.alive[deleted] = False

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows that have a document, ascending."""
        return np.flatnonzero(self.alive)

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows that have a document, ascending and without repetitions.

        Raises:
            ValueError: a row is beyond the last.
        """
        if rows.size and rows.max() >= len(self.alive):
            raise ValueError(f"row {rows.max()} is beyond the index's last row {len(self.alive) - 1}")
        unique = np.unique(rows[rows >= 0])
        there: np.ndarray = unique[self.alive[unique]]
        return there

    def all_present(self, rows: np.ndarray) -> np.ndarray:
        """Check that each row has a document, and return the rows, ascending and without repetitions.

        Raises:
            ValueError: a row has no document.
        """
        present = self.present(rows)
        if (missing := ~np.isin(rows, present)).any():
            raise ValueError(f"the index has no document in row {rows[missing][0]}: it is deleted or negative")
        return present

    def decoded(self, rows: np.ndarray) -> Vectors[np.ndarray]:
        """Return the decoded vectors of documents, whose rows are ascending."""
        packed, starts = self._packed(rows)
        return Vectors(self.codec.decode(packed), starts)

    def products(
        self, rows: np.ndarray, query_columns: np.ndarray, memory: DecodingMemory
    ) -> tuple[np.ndarray, Vectors[np.ndarray]]:
        """Return the inner products of documents' vectors and a query's, and the documents' vectors before scaling.

        Args:
            rows: [N] the documents' rows, ascending.
            query_columns: [D, Vq] the query's vectors.
            memory: reused for the documents' vectors, so the next call overwrites them.

        Returns:
            products [V, Vq] float32 with the vectors as `decoded` returns them, and N texts with V vectors in all.
        """
        packed, starts = self._packed(rows)
        vectors, lengths = self.codec.decode_unscaled(packed, memory)
        products = vectors @ query_columns
        if lengths is not None:
            products /= lengths[:, None]
        return products, Vectors(vectors, starts)

    def _packed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the encoded vectors of documents ([V, width] uint8), and where each document's start ([N + 1])."""
        parts = [segment.take(local) for segment, local in self._by_segment(rows)]
        counts = np.concatenate([np.empty(0, np.int64), *(np.diff(part.starts) for part in parts)])
        packed = np.concatenate([np.empty((0, self.codec.width), np.uint8), *(part.packed for part in parts)])
        return packed, offsets_of(counts)

    def blocks(self, rows: np.ndarray) -> Iterator[slice]:
        """Yield slices of the rows, each with about `BLOCK` vectors."""
        vectors = sum(len(segment.packed) for segment in self.segments)
        size = max(1, BLOCK * len(self.alive) // max(1, vectors))
        yield from (slice(first, first + size) for first in range(0, len(rows), size))

    def chunks(self) -> Iterator[tuple[int, Vectors[np.ndarray]]]:
        """Yield all documents, decoded, in chunks, each with the place of its first document in `rows`."""
        place = 0
        for segment, first in zip(self.segments, self.bounds[:-1], strict=True):
            row = int(first)
            for part in segment.parts(CHUNK):
                alive = self.alive[row : row + len(part)]
                row += len(part)
                kept = part if alive.all() else part.take(np.flatnonzero(alive))
                if len(kept):
                    yield place, Vectors(self.codec.decode(kept.packed), kept.starts)
                place += len(kept)

    def candidates(self, query: Vectors[np.ndarray], most: int, probes: int) -> np.ndarray:
        """Return the rows of the documents that a query's nearest centroids propose, ascending.

        Args:
            query: one text.
            most: the most documents to return: those with the highest estimated scores.
            probes: how many of the nearest centroids propose documents, for each query vector.
        """
        assert self.codec.centroids is not None
        postings = [segment.postings for segment in self.segments if segment.postings is not None]
        products = self.codec.centroids @ np.ascontiguousarray(query.flat().T)  # [K, Vq]
        rows, estimates = propose(products, postings, self.bounds, probes)
        alive = self.alive[rows]
        proposed: np.ndarray = rows[alive]
        estimates = estimates[alive]
        if len(proposed) <= most:
            return proposed
        least = np.partition(estimates, len(proposed) - most)[len(proposed) - most]
        above = proposed[estimates > least]
        best: np.ndarray = np.sort(np.concatenate([above, proposed[estimates == least][: most - len(above)]]))
        return best

    def kept(self) -> list[tuple[Segment, np.ndarray]]:
        """Return each segment with its documents that are not deleted."""
        return [(segment, local) for segment, local in self._by_segment(self.rows)]

    def _by_segment(self, rows: np.ndarray) -> Iterator[tuple[Segment, np.ndarray]]:
        """Yield each segment with its share of some ascending rows, counted from the segment's first document."""
        ends = np.searchsorted(rows, self.bounds)
        for segment, first, (start, end) in zip(self.segments, self.bounds[:-1], pairwise(ends), strict=True):
            yield segment, rows[start:end] - first
