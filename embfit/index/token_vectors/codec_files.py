"""The files of a token index's codec, and the sample that a codec is fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embfit.atomic_files import replacing_folder
from embfit.index.rescoring import NOT_FINITE, contiguous, first_not_finite
from embfit.index.token_vectors.codec import LEVELS, TokenCodec, plain_payload
from embfit.index.token_vectors.manifest import Manifest
from embfit.index.token_vectors.payloads import Levels
from embfit.index.token_vectors.pooling import pool
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.index.token_vectors.storage import open_array, write
from embfit.vectors import Vectors

CENTROIDS, LEVEL_TABLE, SCALES = "centroids.npy", "levels.npy", "scales.npy"


def draw_sample(documents: Vectors[np.ndarray], vectors: int, settings: TokenIndexing) -> np.ndarray:
    """Return about as many vectors as asked for, of documents drawn at random and pooled: [S, D] float32.

    Raises:
        ValueError: a vector is not finite.
    """
    order = np.random.default_rng(settings.seed).permutation(len(documents))
    enough = 1 + int(np.searchsorted(np.cumsum(documents.counts[order]), vectors * settings.pool_factor))
    drawn = np.sort(order[:enough])
    taken = contiguous(documents.take(drawn))
    if (place := first_not_finite(taken)) is not None:
        raise ValueError(NOT_FINITE.format(drawn[place], "documents"))
    return pool(taken, settings.pool_factor, settings.protected).rows[:vectors]


def write_codec(folder: Path, codec: TokenCodec) -> None:
    """Write a codec's centroids and table into a folder, atomically."""
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
    files = folder / manifest.codec
    centroids = np.asarray(open_array(files / CENTROIDS), np.float32)
    if form not in LEVELS:
        return TokenCodec(form, plain_payload(form, dim), centroids)
    levels, scales = np.asarray(open_array(files / LEVEL_TABLE)), np.asarray(open_array(files / SCALES))
    return TokenCodec(form, Levels(levels, scales), centroids)
