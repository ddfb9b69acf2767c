"""Token vectors as bytes: what a format keeps of a vector, fitted to a sample of the documents' vectors.

A residual format keeps the number of the nearest centroid and what is left over, as levels of a table (Santhanam et al.
2022, ColBERTv2, section 3.3). Their levels are quantiles of all residuals; here they are those of least squared error,
after each dimension is divided by its spread, which costs nothing when vectors are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np

from embfit.index.token_vectors.centroids import NearestCentroid, train_centroids
from embfit.index.token_vectors.levels import fit_levels
from embfit.index.token_vectors.payloads import TINY, EightBits, HalfPrecision, Levels, Payload

TokenFormat: TypeAlias = Literal["float16", "int8", "residual4", "residual2", "ternary"]
"""What is kept of a vector: all of it, or its centroid and a residual of 4 bits, 2 bits or one of three levels."""

TOKEN_FORMATS: tuple[TokenFormat, ...] = get_args(TokenFormat)
LEVELS: Mapping[TokenFormat, int] = {"residual4": 16, "residual2": 4, "ternary": 3}
CODE = 2  # bytes of a centroid's number
LEAST_FITTED = 1024  # vectors that a table is fitted to
HELD_OUT = 20  # one vector of so many is kept from k-means, and fits the table
MOST_FITTED = 50_000  # vectors that the table is fitted to
OFF_UNIT = 0.01  # by which a length may differ from 1: half precision and eight bits stay well within


class DecodingMemory:
    """Memory that decoded vectors are written to again and again.

    The operating system clears the pages of new memory one by one. For vectors that are scored once and discarded, this
    takes longer than the decoding itself.
    """

    def __init__(self) -> None:
        self._values = self._vectors = np.empty(0, np.float32)

    def values(self, count: int, width: int) -> np.ndarray:
        """Return [count, width] float32 for the payload's values; the content is arbitrary."""
        self._values = _of_size(self._values, count * width)
        return self._values[: count * width].reshape(count, width)

    def vectors(self, count: int, width: int) -> np.ndarray:
        """Return [count, width] float32 for complete vectors; the content is arbitrary."""
        self._vectors = _of_size(self._vectors, count * width)
        return self._vectors[: count * width].reshape(count, width)


@dataclass(frozen=True, eq=False)
class TokenCodec:
    """Writes token vectors in a format and reads them back.

    Args:
        form: the format.
        payload: writes what is kept beside the centroid.
        centroids: [K, D] float32; None where vectors have no centroid.
    """

    form: TokenFormat
    payload: Payload
    centroids: np.ndarray | None = None

    @classmethod
    def fit(cls, form: TokenFormat, sample: np.ndarray, centroids: int, seed: int) -> TokenCodec:
        """Return a codec for vectors like those of a sample.

        Args:
            form: the format.
            sample: [S, D] float32, finite.
            centroids: how many are wanted; 0 for none, which residual formats cannot do without.
            seed: draws where k-means begins.

        Raises:
            ValueError: the sample is too small for the format.
        """
        dim = sample.shape[1]
        if form in LEVELS and len(sample) < LEAST_FITTED:
            raise ValueError(
                f"format={form} is fitted to the documents' vectors, and {len(sample)} are too few ({LEAST_FITTED} at "
                "least); set format=auto, float16 or int8"
            )
        if not centroids or not len(sample):
            return cls(form, plain_payload(form, dim))
        held_out = np.arange(len(sample)) % HELD_OUT == 0
        if len(sample) < LEAST_FITTED:
            held_out[:] = False
        trained = train_centroids(sample[~held_out], centroids, seed)
        if form not in LEVELS:
            return cls(form, plain_payload(form, dim), trained)
        fitted = sample[held_out][:MOST_FITTED]
        residuals = fitted - trained[NearestCentroid(trained)(fitted)]
        scales = np.maximum(residuals.std(axis=0), TINY).astype(np.float32)
        return cls(form, Levels(fit_levels(residuals / scales, LEVELS[form]), scales), trained)

    @property
    def width(self) -> int:
        """Bytes of a vector."""
        return self.payload.width + (CODE if self.centroids is not None else 0)

    @property
    def longest(self) -> float | None:
        """The greatest length that a vector which was read can have; None where lengths are kept as they were."""
        return 1.0 + OFF_UNIT if self.form in LEVELS else None

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Write vectors: [N, D] float32 → [N, width] uint8.

        Raises:
            ValueError: a vector's length is not 1, and the format keeps directions alone.
        """
        if self.centroids is None:
            return self.payload.encode(vectors)
        codes = self._nearest(vectors)
        head = codes.astype("<u2")[:, None].view(np.uint8)  # [N, 2]
        if self.form in LEVELS:
            self._check_lengths(vectors)
            vectors = vectors - self.centroids[codes]
        return np.concatenate([head, self.payload.encode(vectors)], axis=1)

    def decode(self, packed: np.ndarray, memory: DecodingMemory | None = None) -> np.ndarray:
        """Read vectors: [N, width] uint8 → [N, D] float32, of length 1 where the format is a residual one.

        Args:
            packed: the vectors, as `encode` wrote them.
            memory: where they are written to, so that the next call overwrites them; None takes new memory.
        """
        memory = DecodingMemory() if memory is None else memory
        head = 0 if self.centroids is None else CODE
        rest = self.payload.decode(packed[:, head:], memory.values(len(packed), self.payload.decoded_width))
        if self.centroids is None or self.form not in LEVELS:
            return rest
        whole = memory.vectors(len(packed), self.centroids.shape[1])
        np.take(self.centroids, self.codes(packed), axis=0, out=whole, mode="clip")  # "raise" would buffer `out`
        whole += rest
        whole /= np.maximum(np.sqrt(np.einsum("nd,nd->n", whole, whole)), TINY)[:, None]
        return whole

    def codes(self, packed: np.ndarray) -> np.ndarray:
        """Return the numbers of the vectors' centroids: [N, width] uint8 → [N] uint16."""
        return np.ascontiguousarray(packed[:, :CODE]).view("<u2")[:, 0]

    @cached_property
    def _nearest(self) -> NearestCentroid:
        assert self.centroids is not None
        return NearestCentroid(self.centroids)

    def _check_lengths(self, vectors: np.ndarray) -> None:
        lengths = np.linalg.norm(vectors, axis=1)
        if (off := np.abs(lengths - 1) > OFF_UNIT).any():
            raise ValueError(
                f"a vector of length {lengths[off][0]:.3g} cannot be kept as {self.form}, which keeps directions "
                "alone; normalise the vectors, or set format=float16 or int8"
            )


def bytes_per_vector(form: TokenFormat, dim: int, by_centroids: bool) -> int:
    """Return the bytes of a vector of so many dimensions, before there are any.

    Args:
        form: the format.
        dim: dimensions.
        by_centroids: whether candidates come from centroids, so that every format keeps the nearest one's number.
    """
    if form in LEVELS:
        digits = Levels(np.zeros(LEVELS[form], np.float32), np.ones(dim, np.float32))
        return digits.width + CODE
    return plain_payload(form, dim).width + (CODE if by_centroids else 0)


def plain_payload(form: TokenFormat, dim: int) -> Payload:
    """Return what writes whole vectors."""
    return HalfPrecision(dim) if form == "float16" else EightBits(dim)


def _of_size(array: np.ndarray, least: int) -> np.ndarray:
    """Return the array, or a new one if it has fewer values."""
    return array if array.size >= least else np.empty(least, np.float32)
