"""A server's vectors of a collection's texts, kept in the store: what has a vector is not sent again.

A name and an address say nothing of the weights behind them. So a few of the texts that have a vector are sent again
each time, and where the server now answers otherwise, all that was kept is forgotten.
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
"""Gives the texts at some places, with their prompt."""

log = logging.getLogger(__name__)

VERSION = 1  # of the store's served vectors
SECONDS = 10.0  # of answers that a loss of power may lose
SENT_AGAIN = 8  # texts whose vectors are compared with those kept
CHANGED = 0.001  # drift, in direction or length, beyond which the server is another one
BLOCK = 4096  # rows looked at together


def served_vectors(
    server: Server, collection: Collection, kind: Kind, rows: Sequence[int], prompt: str, store: Store
) -> tuple[np.ndarray, int]:
    """Return a server's vectors of some queries or documents ([N, D] float32, memory-mapped), and how many were sent.

    Args:
        server: makes the vectors.
        collection: has the texts.
        kind: which texts.
        rows: which of them, by row.
        prompt: put in front of each.
        store: keeps the vectors, under address, model, prompt and texts.

    Raises:
        UserError: the server does not answer, or not as it should; what it has answered is kept.
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
            log.warning("%s gives other vectors than before: all texts are sent again", server.url)
            (folder / MATRIX).unlink()
            kept[:] = False
        missing = np.flatnonzero(~kept)
        if len(missing):
            _fill(server, texts, missing, len(chosen), folder, f"{PLURALS[kind]} at the server")
        return np.load(folder / MATRIX, mmap_mode="r"), len(missing)


def _kept(folder: Path, total: int) -> np.ndarray:
    """Tell which rows of the matrix have their vector ([N] bool): NaN is what a row begins as."""
    if not (folder / MATRIX).is_file():
        return np.zeros(total, bool)
    matrix = np.load(folder / MATRIX, mmap_mode="r")
    blocks = [~np.isnan(matrix[first : first + BLOCK]).any(axis=1) for first in range(0, total, BLOCK)]
    return np.concatenate(blocks)


def _changed(server: Server, texts: Texts, kept: np.ndarray, folder: Path) -> bool:
    """Tell whether the server now answers otherwise than it did."""
    places = kept[np.linspace(0, len(kept) - 1, min(SENT_AGAIN, len(kept)), dtype=np.int64)]
    now = server.encode(texts(places), len(places), "comparing with the vectors kept")
    before = np.load(folder / MATRIX, mmap_mode="r")[places]
    return now.shape != before.shape or measure_drift(now, before, lengths=True).most > CHANGED


def _fill(server: Server, texts: Texts, missing: np.ndarray, total: int, folder: Path, label: str) -> None:
    """Have the missing rows answered, each answer written as it comes."""
    matrix: np.memmap | None = None
    flushed = time.monotonic()
    try:
        for first, vectors in server.encode_batches(texts(missing), len(missing), label):
            if matrix is None:
                new_matrix(folder, (total, vectors.shape[1]))
                matrix = np.lib.format.open_memmap(folder / MATRIX, "r+")
            if vectors.shape[1] != matrix.shape[1]:
                raise UserError(f"{server.url}: vectors of {matrix.shape[1]} and {vectors.shape[1]} dimensions")
            matrix[missing[first : first + len(vectors)]] = vectors
            if time.monotonic() - flushed > SECONDS:
                matrix.flush()
                flushed = time.monotonic()
    finally:
        if matrix is not None:
            matrix.flush()
