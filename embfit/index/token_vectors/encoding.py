"""Encode documents' token vectors in a format, chunk by chunk: here, or by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embfit.cluster import Do, current_cluster
from embfit.index.rescoring import contiguous, longest_vectors
from embfit.index.token_vectors.codec import TokenCodec
from embfit.index.token_vectors.pooling import pool
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.vectors import Vectors

PART_CHUNKS = 16  # chunks that a worker gets at once: 134 MB of 128 dimensions in chunks of 16,384 vectors
MOST_LENGTH = 65_504  # the greatest number of half precision, in which formats store values or steps
SPREAD_FROM = 1 << 20  # vectors; below, sending costs more than it saves

Chunks = Sequence[tuple[int, Vectors[np.ndarray]]]


@dataclass(frozen=True)
class TokenEncodingWork:
    """A worker's encoding of documents.

    Args:
        codec: encodes vectors.
        settings: how vectors are pooled first.
    """

    codec: TokenCodec
    settings: TokenIndexing

    def prepare(self, device: str) -> Do:
        """Return the function that encodes the chunks of a part; it uses the CPU, whatever the device."""
        return lambda chunks: [self.encode(chunk) for chunk in chunks]

    def encode(self, chunk: Vectors[np.ndarray]) -> np.ndarray:
        """Pool and encode the vectors of some documents: [V, width] uint8."""
        return self.codec.encode(pool(chunk, self.settings.pool_factor, self.settings.protected).rows)


def encode_chunks(
    chunks: Chunks, codec: TokenCodec, settings: TokenIndexing
) -> Iterator[tuple[int, Vectors[np.ndarray], np.ndarray]]:
    """Yield the row of a chunk's first document, the chunk, and its encoded vectors ([V, width] uint8), in any order.

    Args:
        chunks: the documents, each chunk with the row of its first.
        codec: encodes vectors.
        settings: how vectors are pooled first.

    Raises:
        ValueError: a vector is not finite, is too long for half precision, or does not fit the format.
        UserError: the workers of the cluster are lost.
    """
    work, cluster = TokenEncodingWork(codec, settings), current_cluster()
    if cluster is None or sum(len(chunk.rows) for _, chunk in chunks) < SPREAD_FROM:
        for start, chunk in chunks:
            yield start, chunk, work.encode(_checked(start, chunk))
        return
    parts = [chunks[first : first + PART_CHUNKS] for first in range(0, len(chunks), PART_CHUNKS)]

    def part_of_chunks(number: int) -> list[Vectors[np.ndarray]]:
        return [_checked(start, chunk) for start, chunk in parts[number]]

    for number, found in cluster.spread(work, part_of_chunks, range(len(parts))):
        for (start, chunk), packed in zip(parts[number], found, strict=True):
            yield start, chunk, packed


def _checked(start: int, chunk: Vectors[np.ndarray]) -> Vectors[np.ndarray]:
    """Check that a chunk's vectors are finite and within half precision, and return contiguous float32 rows."""
    read = contiguous(chunk)
    lengths = longest_vectors(read, "documents", start)
    if (long := np.flatnonzero(lengths > MOST_LENGTH)).size:
        raise ValueError(
            f"row {start + long[0]} of the documents has a vector of length {lengths[long[0]]:,.0f}, and half "
            f"precision stores values up to {MOST_LENGTH:,}; normalise the vectors"
        )
    return read
