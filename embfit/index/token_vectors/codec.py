"""Token vectors as bytes, in a format that is fitted to a sample of the documents' vectors.

A residual format stores the number of the nearest centroid and the residual, each value as a level of a table
(Santhanam et al. 2022, ColBERTv2, section 3.3). ColBERTv2's levels are quantiles of all residuals. Here they minimise
the squared error, after each dimension is divided by its standard deviation, which costs nothing in decoding.
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
"""How a vector is stored: whole, or as its centroid and a residual of 4 bits, 2 bits or one of three levels a value."""

TOKEN_FORMATS: tuple[TokenFormat, ...] = get_args(TokenFormat)
LEVELS: Mapping[TokenFormat, int] = {"residual4": 16, "residual2": 4, "ternary": 3}
CODE = 2  # bytes of a centroid's number
LEAST_FITTED = 1024  # vectors that a residual format needs in its sample
HELD_OUT = 20  # one in this many vectors of the sample is left out of k-means, and the table is fitted to it
MOST_FITTED = 50_000  # vectors that the table is fitted to, at most
OFF_UNIT = 0.01  # the most by which a length may differ from 1; the rounding of half precision is far smaller


class DecodingMemory:
    """Memory for decoded vectors that is reused from call to call.

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
    """Encodes token vectors in a format and decodes them.

    Args:
        form: the format.
        payload: encodes the residual, or the whole vector in formats without residuals.
        centroids: [K, D] float32; None if no centroid is stored with a vector.
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
            centroids: the number of centroids; 0 for none, though residual formats need some.
            seed: draws the start of k-means.

        Raises:
            ValueError: the sample is too small for the format.
        """
        dim = sample.shape[1]
        if form in LEVELS and len(sample) < LEAST_FITTED:
            raise ValueError(
                f"format={form} is fitted to the documents' vectors and needs at least {LEAST_FITTED}, but there are "
                f"{len(sample)}; set format=auto, float16 or int8"
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
        """The greatest length of a decoded vector; None if the format does not limit it."""
        return 1.0 + OFF_UNIT if self.form in LEVELS else None

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Encode vectors: [N, D] float32 → [N, width] uint8.

        Raises:
            ValueError: a vector's length is not 1, and the format stores only directions.
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
        """Decode vectors: [N, width] uint8 → [N, D] float32; a residual format gives them length 1.

        Args:
            packed: the vectors, as `encode` returned them.
            memory: reused for the result, so the next call overwrites it; None takes new memory.
        """
        vectors, lengths = self.decode_unscaled(packed, DecodingMemory() if memory is None else memory)
        if lengths is not None:
            vectors /= lengths[:, None]
        return vectors

    def decode_unscaled(self, packed: np.ndarray, memory: DecodingMemory) -> tuple[np.ndarray, np.ndarray | None]:
        """Decode vectors without dividing them by their lengths, which is cheaper for few inner products than for them.

        Args:
            packed: [N, width] uint8, as `encode` returned it.
            memory: reused for the result, so the next call overwrites it.

        Returns:
            vectors [N, D] float32, and the lengths to divide them by ([N] float32); None if they are complete.
        """
        head = 0 if self.centroids is None else CODE
        rest = self.payload.decode(packed[:, head:], memory.values(len(packed), self.payload.decoded_width))
        if self.centroids is None or self.form not in LEVELS:
            return rest, None
        whole = memory.vectors(len(packed), self.centroids.shape[1])
        np.take(self.centroids, self.codes(packed), axis=0, out=whole, mode="clip")  # "raise" would buffer `out`
        whole += rest
        return whole, np.maximum(np.sqrt(np.einsum("nd,nd->n", whole, whole)), TINY)

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
                f"a vector of length {lengths[off][0]:.3g} cannot be stored as {self.form}, which stores only "
                "directions; normalise the vectors, or set format=float16 or int8"
            )


def bytes_per_vector(form: TokenFormat, dim: int, by_centroids: bool) -> int:
    """Return the bytes of a stored vector, which are known before any vector is.

    Args:
        form: the format.
        dim: dimensions of a vector.
        by_centroids: whether candidates come from centroids, so that every format stores the nearest one's number.
    """
    if form in LEVELS:
        digits = Levels(np.zeros(LEVELS[form], np.float32), np.ones(dim, np.float32))
        return digits.width + CODE
    return plain_payload(form, dim).width + (CODE if by_centroids else 0)


def plain_payload(form: TokenFormat, dim: int) -> Payload:
    """Return the payload of a format that stores whole vectors."""
    return HalfPrecision(dim) if form == "float16" else EightBits(dim)


def _of_size(array: np.ndarray, least: int) -> np.ndarray:
    """Return the array, or a new one if it has fewer values."""
    return array if array.size >= least else np.empty(least, np.float32)
