"""Vectors of a collection's texts from a server, cached in the store so that no text is sent twice.

An address and a model's name do not identify the weights behind them. So each run sends a few cached texts again; if
the server now returns other vectors, the cache is discarded.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from embfit.errors import UserError
from embfit.evaluator.served import Server, measure_drift
from embfit.model.embed import PLURALS
from embfit.model.encoder import Kind
from embfit.model.encoding import MATRIX, new_matrix
from embfit.records import Collection
from embfit.store import Store

Texts: TypeAlias = Callable[[np.ndarray], Iterator[str]]
"""Returns the texts at some places of the chosen rows, with their prompt."""

log = logging.getLogger(__name__)

VERSION = 1  # of the stored vectors
SECONDS = 10.0  # between two flushes to disk: a power failure loses at most the answers of this time
SENT_AGAIN = 8  # cached texts that are sent again
CHANGED = 0.001  # drift, in direction or length, beyond which the server's model has changed
BLOCK = 4096  # rows checked at once


def served_vectors(
    server: Server, collection: Collection, kind: Kind, rows: Sequence[int], prompt: str, store: Store
) -> tuple[np.ndarray, int]:
    """Return a server's vectors of some queries or documents ([N, D] float32, memory-mapped), and how many were sent.

    Args:
        server: computes the vectors.
        collection: has the texts.
        kind: queries or documents.
        rows: the rows of the texts to embed.
        prompt: put in front of each text.
        store: keeps the vectors, by address, model, prompt and texts.

    Raises:
        UserError: the server does not answer, or its answer is malformed; vectors received before are kept.
    """
    chosen = np.asarray(rows, np.int64)
    key = {
        "url": server.url,
        "model": server.model,
        "prompt": prompt,
        "kind": kind,
        "texts": collection.queries_digest if kind == "query" else collection.corpus_digest,
        "rows": hashlib.sha256(chosen.tobytes()).hexdigest(),
    }
    read = collection.query_texts if kind == "query" else collection.document_texts

    def texts(places: np.ndarray) -> Iterator[str]:
        return (prompt + text for text in read(chosen[places].tolist()))

    with store.growing("served", key, version=VERSION) as folder:
        kept = _kept(folder, len(chosen))
        if kept.any() and _changed(server, texts, np.flatnonzero(kept), folder):
            log.warning("%s returns other vectors than before: all texts are sent again", server.url)
            (folder / MATRIX).unlink()
            kept[:] = False
        missing = np.flatnonzero(~kept)
        if len(missing):
            _fill(server, texts, missing, len(chosen), folder, f"{PLURALS[kind]} at the server")
        return np.load(folder / MATRIX, mmap_mode="r"), len(missing)


def _kept(folder: Path, total: int) -> np.ndarray:
    """Return which rows of the matrix have their vector ([N] bool); a row without one is NaN."""
    if not (folder / MATRIX).is_file():
        return np.zeros(total, bool)
    matrix = np.load(folder / MATRIX, mmap_mode="r")
    blocks = [~np.isnan(matrix[first : first + BLOCK]).any(axis=1) for first in range(0, total, BLOCK)]
    return np.concatenate(blocks)


def _changed(server: Server, texts: Texts, kept: np.ndarray, folder: Path) -> bool:
    """Send a few cached texts again, and return whether the server's vectors have changed."""
    places = kept[np.linspace(0, len(kept) - 1, min(SENT_AGAIN, len(kept)), dtype=np.int64)]
    now = server.encode(texts(places), len(places), "comparing with the vectors kept")
    before = np.load(folder / MATRIX, mmap_mode="r")[places]
    return now.shape != before.shape or measure_drift(now, before, lengths=True).most > CHANGED


def _fill(server: Server, texts: Texts, missing: np.ndarray, total: int, folder: Path, label: str) -> None:
    """Request the missing vectors, and write each answer as it arrives."""
    matrix: np.memmap | None = None
    flushed = time.monotonic()
    try:
        for first, vectors in server.encode_batches(texts(missing), len(missing), label):
            if matrix is None:
                new_matrix(folder, (total, vectors.shape[1]))
                matrix = np.lib.format.open_memmap(folder / MATRIX, "r+")
            if vectors.shape[1] != matrix.shape[1]:
                raise UserError(
                    f"{server.url} returned vectors of {matrix.shape[1]} and of {vectors.shape[1]} dimensions, which "
                    "one model does not; check what the server runs"
                )
            matrix[missing[first : first + len(vectors)]] = vectors
            if time.monotonic() - flushed > SECONDS:
                matrix.flush()
                flushed = time.monotonic()
    finally:
        if matrix is not None:
            matrix.flush()
