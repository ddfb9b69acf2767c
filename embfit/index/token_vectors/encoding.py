"""Documents' token vectors written in a format, chunk by chunk: here, or by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embfit.cluster import Do, current_cluster
from embfit.index.rescoring import longest_vectors, readable
from embfit.index.token_vectors.codec import TokenCodec
from embfit.index.token_vectors.pooling import pool
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.vectors import Vectors

PART_CHUNKS = 16  # that a worker gets at once: 134 MB of 128 dimensions in chunks of 16,384 vectors
SPREAD_FROM = 1 << 20  # vectors; fewer are written before they have been sent to a cluster

Chunks = Sequence[tuple[int, Vectors[np.ndarray]]]


@dataclass(frozen=True)
class TokenEncodingWork:
    """What a worker writes documents with.

    Args:
        codec: writes vectors.
        settings: say how vectors are pooled.
    """

    codec: TokenCodec
    settings: TokenIndexing

    def prepare(self, device: str) -> Do:
        """Return what writes the chunks of a part, on the CPU of whatever machine."""
        return lambda chunks: [self.encode(chunk) for chunk in chunks]

    def encode(self, chunk: Vectors[np.ndarray]) -> np.ndarray:
        """Write the vectors of some documents, pooled: [V, width] uint8."""
        return self.codec.encode(pool(chunk, self.settings.pool_factor, self.settings.protected).rows)


def encode_chunks(
    chunks: Chunks, codec: TokenCodec, settings: TokenIndexing
) -> Iterator[tuple[int, Vectors[np.ndarray], np.ndarray]]:
    """Yield the row of a chunk's first document, the chunk, and its encoded vectors ([V, width] uint8), in any order.

    Args:
        chunks: the documents, each chunk with the row of its first.
        codec: writes vectors.
        settings: say how vectors are pooled before.

    Raises:
        ValueError: a vector is not finite, or not what the format can keep.
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
    """Return a chunk as it is read, all of whose vectors are finite."""
    read = readable(chunk)
    longest_vectors(read, "documents", start)
    return read
