"""Reuses the document vectors of an earlier version, so that only new and changed documents are encoded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from embfit.bundle.documents import read_documents
from embfit.bundle.manifest import read_manifest, verify
from embfit.bundle.opening import INDEX
from embfit.bundle.versions import BundleVersions, VersionLease
from embfit.errors import UserError
from embfit.index import EarlierIndex, load_index
from embfit.index.protocol import KeepsVectors
from embfit.model import Encoder, embed
from embfit.model.embed import embeddings_fingerprint
from embfit.ragged import offsets_of, places_of
from embfit.records import Collection, Embeddings
from embfit.store import Store
from embfit.text_digests import CONTENT, digest_array
from embfit.vectors import Vectors

log = logging.getLogger(__name__)

CHUNK = 32_768  # documents whose vectors are copied at a time


@dataclass(frozen=True)
class EarlierVersion:
    """An earlier version with document vectors of the same encoder.

    Args:
        number: the version's number.
        index: its index.
        vectors: the vectors of its documents.
        rows: for each document of the new version, the row of one with the same text here ([N] int64); -1 if there is
            none.
        removed: how many of its documents have a text that the new version lacks.
        lease: keeps its folder from being pruned.
    """

    number: int
    index: EarlierIndex
    vectors: Vectors[np.ndarray]
    rows: np.ndarray
    removed: int
    lease: VersionLease


def find_earlier(versions: BundleVersions, encoder: Encoder, collection: Collection) -> EarlierVersion | None:
    """Return the newest version that has vectors of this encoder for some of a collection's documents.

    Damaged versions are skipped with a warning.
    """
    made_by = encoder.fingerprint("document")
    digests = digest_array(collection.document_digests[CONTENT])
    for number in reversed(versions.numbers()):
        folder = versions.folder / str(number)
        try:
            if found := _earlier(number, folder, made_by, digests):
                return found
        except UserError as error:
            log.warning("%s; its vectors are not reused", error)
    return None


def _earlier(number: int, folder: Path, made_by: str, digests: np.ndarray) -> EarlierVersion | None:
    manifest = read_manifest(folder)
    if manifest.model.document != made_by:
        return None
    lease = VersionLease(folder)
    try:
        index = load_index(folder / INDEX, check=False)  # its vectors are in the folder
        if isinstance(index, KeepsVectors):
            verify(folder, manifest)  # damaged vectors must not be copied
            documents = read_documents(folder, manifest.label, manifest.documents)
            known = digest_array(documents.document_digests[CONTENT])
            rows = _rows(known, digests)
            if (rows >= 0).any():
                removed = int((~np.isin(known, digests)).sum())
                return EarlierVersion(number, EarlierIndex(index, rows), index.documents, rows, removed, lease)
    except BaseException:
        lease.release()
        raise
    lease.release()
    return None


def document_vectors(
    encoder: Encoder, collection: Collection, store: Store, earlier: EarlierVersion | None, folder: Path
) -> Embeddings:
    """Return the vectors of a collection's documents, copied from an earlier version where that has them.

    Vectors that were encoded before a crash are not encoded again.

    Args:
        encoder: encodes the other documents.
        collection: the documents.
        store: keeps the vectors.
        earlier: the earlier version; None encodes all documents.
        folder: the folder for a file with all vectors, if some are copied.
    """
    if earlier is None:
        return embed(encoder, collection, "document", store)
    new = np.flatnonzero(earlier.rows < 0)
    made = embed(encoder, replace(collection, corpus=collection.corpus.select(new)), "document", store).vectors
    joined = _joined(earlier.vectors, made, earlier.rows, folder / "vectors.npy")
    return Embeddings(joined, embeddings_fingerprint(encoder, collection, "document"))


def _joined(old: Vectors[np.ndarray], new: Vectors[np.ndarray], rows: np.ndarray, path: Path) -> Vectors[np.ndarray]:
    """Write all vectors into one file: those of old rows, and for each row of -1 the next new vector."""
    kept, added = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    starts = None
    if not old.single:
        counts = np.empty(len(rows), np.int64)
        counts[kept], counts[added] = old.counts[rows[kept]], new.counts
        starts = offsets_of(counts)
    total = len(rows) if starts is None else int(starts[-1])
    matrix = open_memmap(path, "w+", np.float32, (total, old.width))
    for texts, source, chosen in ((kept, old, rows[kept]), (added, new, np.arange(len(added)))):
        for start in range(0, len(texts), CHUNK):
            some = slice(start, start + CHUNK)
            places = texts[some] if starts is None else places_of(starts, texts[some])
            matrix[places] = source.take(chosen[some]).flat()
    matrix.flush()
    return Vectors(matrix, starts)


def _rows(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the first index of each wanted digest among the known ones; -1 if it is unknown."""
    order = np.argsort(known, kind="stable")
    found = np.searchsorted(known[order], wanted)
    candidates = order[np.minimum(found, len(order) - 1)]
    return np.where(known[candidates] == wanted, candidates, -1)
