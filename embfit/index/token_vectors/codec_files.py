"""The codec of a token index: the sample that it is fitted to, and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embfit.atomic_files import replacing_folder
from embfit.index.rescoring import NOT_FINITE, first_not_finite, readable
from embfit.index.token_vectors.codec import LEVELS, TokenCodec, plain_payload
from embfit.index.token_vectors.manifest import Manifest
from embfit.index.token_vectors.payloads import Levels
from embfit.index.token_vectors.pooling import pool
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.index.token_vectors.storage import opened, write
from embfit.vectors import Vectors

CENTROIDS, LEVEL_TABLE, SCALES = "centroids.npy", "levels.npy", "scales.npy"


def draw_sample(documents: Vectors[np.ndarray], vectors: int, settings: TokenIndexing) -> np.ndarray:
    """Return the vectors of enough documents, drawn at random and pooled, to have so many: [S, D] float32.

    Raises:
        ValueError: a vector is not finite.
    """
    order = np.random.default_rng(settings.seed).permutation(len(documents))
    enough = 1 + int(np.searchsorted(np.cumsum(documents.counts[order]), vectors * settings.pool_factor))
    drawn = np.sort(order[:enough])
    taken = readable(documents.take(drawn))
    if (place := first_not_finite(taken)) is not None:
        raise ValueError(NOT_FINITE.format(drawn[place], "documents"))
    return pool(taken, settings.pool_factor, settings.protected).rows[:vectors]


def write_codec(folder: Path, codec: TokenCodec) -> None:
    """Write the centroids and the table of a codec into the folder of that name."""
    with replacing_folder(folder) as unfinished:
        if codec.centroids is not None:
            write(unfinished / CENTROIDS, codec.centroids.astype("<f2"))
        if isinstance(codec.payload, Levels):
            write(unfinished / LEVEL_TABLE, codec.payload.levels)
            write(unfinished / SCALES, codec.payload.scales)


def read_codec(folder: Path, manifest: Manifest) -> TokenCodec:
    """Return the codec of an index."""
    form, dim = manifest.form, manifest.dim
    if manifest.codec is None:
        return TokenCodec(form, plain_payload(form, dim))
    of = folder / manifest.codec
    centroids = np.asarray(opened(of / CENTROIDS), np.float32)
    if form not in LEVELS:
        return TokenCodec(form, plain_payload(form, dim), centroids)
    return TokenCodec(form, Levels(np.asarray(opened(of / LEVEL_TABLE)), np.asarray(opened(of / SCALES))), centroids)
