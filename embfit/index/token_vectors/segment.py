"""A segment of a token index on disk: documents that were written together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embfit.index.token_vectors.codec import TokenCodec
from embfit.index.token_vectors.encoding import encode_chunks
from embfit.index.token_vectors.pooling import pooled_counts
from embfit.index.token_vectors.postings import read_postings, write_postings
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.index.token_vectors.storage import open_array, write, writing
from embfit.progress import progress
from embfit.ragged import Ragged, offsets_of, owners_of, part_of, take_from
from embfit.vectors import Vectors

VECTORS, STARTS = "vectors.npy", "starts.npy"
CHUNK = 16_384  # vectors written or read at once
COPIED = 1_024  # documents copied at once


@dataclass(frozen=True, eq=False)
class Segment:
    """Encoded vectors of some documents, memory-mapped.

    Args:
        packed: [V, width] uint8, as the codec encodes them.
        starts: [N + 1] int64, where each document's vectors begin.
        postings: each centroid's documents; None if candidates are not found by centroids.
    """

    packed: np.ndarray
    starts: np.ndarray
    postings: Ragged | None = None

    @classmethod
    def open(cls, folder: Path, postings: bool) -> Segment:
        """Open a segment, memory-mapped."""
        starts = np.asarray(open_array(folder / STARTS))
        return cls(open_array(folder / VECTORS), starts, read_postings(folder) if postings else None)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.starts) - 1

    def parts(self, most: int) -> Iterator[Segment]:
        """Yield all documents, in parts of at most `most` vectors or of a single document."""
        for start, part in Vectors(self.packed, self.starts).chunks(most):
            yield Segment(*part_of(self.packed, self.starts, start, start + len(part)))

    def take(self, documents: np.ndarray) -> Segment:
        """Return some documents, in the order given."""
        return Segment(*take_from(self.packed, self.starts, documents))


def encode_segment(
    folder: Path,
    documents: Vectors[np.ndarray],
    codec: TokenCodec,
    settings: TokenIndexing,
    label: str | None,
) -> None:
    """Encode documents and write them as a segment, in chunks.

    Raises:
        ValueError: a vector is not finite, or does not fit the format.
    """
    counts = pooled_counts(documents.counts, settings.pool_factor, settings.protected)
    with (
        progress(label, total=len(documents), unit="documents") as advance,
        writing_segment(folder, counts, codec.width) as packed,
    ):
        starts = offsets_of(counts)
        for first, chunk, rows in encode_chunks(list(documents.chunks(CHUNK)), codec, settings):
            packed[starts[first] : starts[first + len(chunk)]] = rows
            advance(len(chunk))


def copy_segments(folder: Path, segments: Sequence[tuple[Segment, np.ndarray]], width: int) -> None:
    """Write chosen documents of several segments as one segment, in their order.

    Args:
        folder: the new segment's folder.
        segments: each with the documents that are kept, ascending.
        width: bytes of a vector.
    """
    counts = np.concatenate([np.empty(0, np.int64), *(np.diff(segment.starts)[kept] for segment, kept in segments)])
    with writing_segment(folder, counts, width) as packed:
        written = 0
        for segment, kept in segments:
            for first in range(0, len(kept), COPIED):
                some = segment.take(kept[first : first + COPIED]).packed
                packed[written : written + len(some)] = some
                written += len(some)


def add_postings(folder: Path, codec: TokenCodec) -> None:
    """Write the postings of a segment whose vectors are written."""
    assert codec.centroids is not None
    segment = Segment.open(folder, postings=False)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = 0
        for part in segment.parts(CHUNK):
            yield first + owners_of(part.starts), codec.codes(part.packed)
            first += len(part)

    write_postings(folder, pairs, len(codec.centroids))


@contextmanager
def writing_segment(folder: Path, counts: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Yield an array to fill with the encoded vectors of documents, given each one's number: [V, width] uint8."""
    starts = offsets_of(counts)
    write(folder / STARTS, starts)
    with writing(folder / VECTORS, "|u1", (int(starts[-1]), width)) as packed:
        yield packed
