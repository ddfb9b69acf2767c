"""A cross-encoder's scores of a collection's pairs, kept in the store: each pair is scored once.

For each cross-encoder and collection there is one growing table of pairs and scores. Reranking, mining, its test with
hidden positives, a larger depth and teaching reuse each other's scores. While pairs are scored, a file of new scores is
added every few seconds, so a crash loses only the last few seconds.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from embfit.atomic_files import replacing
from embfit.cluster import current_cluster
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.distributed_scoring import score_spread
from embfit.records import Collection
from embfit.store import Store

log = logging.getLogger(__name__)

VERSION = 1  # version of the store's scores
SECONDS = 20.0  # seconds of work that a crash may lose
SPREAD_FROM = 1024  # pairs; fewer are scored before they have been sent to a cluster
TABLE = "scores.npy"
ADDED = "added-"
ROW = np.dtype([("pair", np.int64), ("score", np.float32)])  # the pair: query row x documents + document row


def score_pairs(
    ranker: CrossEncoder, collection: Collection, rows: np.ndarray, store: Store, label: str = "scoring pairs"
) -> np.ndarray:
    """Return the scores ([P] float32) of pairs; known scores of the same weights come from the store.

    The other pairs of a batch change a score only by rounding.

    Args:
        ranker: the cross-encoder, which scores all queries' pairs sorted by length together.
        collection: the collection that has the texts.
        rows: [P, 2], a query row and a document row each; a repeated pair is scored once.
        store: the store that keeps the scores, by weights, settings and texts; another job that needs them waits.
        label: the label of the progress.
    """
    queries, documents = np.asarray(rows, np.int64).reshape(-1, 2).T
    pairs, where = np.unique(queries * len(collection.corpus) + documents, return_inverse=True)
    key = {
        "ranker": ranker.fingerprint,
        "corpus": collection.corpus_digest,
        "queries": collection.queries_digest,
    }
    with store.growing("scores", key, version=VERSION) as folder:
        table = _read(folder)
        missing = np.setdiff1d(pairs, table["pair"], assume_unique=True)
        if len(missing):
            if len(missing) < len(pairs):
                log.info("%d of %d pairs have a score already", len(pairs) - len(missing), len(pairs))
            _score(ranker, collection, missing, folder, label)
            table = _joined(folder)
    scores: np.ndarray = table["score"][np.searchsorted(table["pair"], pairs)][where]
    return scores


def _score(ranker: CrossEncoder, collection: Collection, pairs: np.ndarray, folder: Path, label: str) -> None:
    """Score pairs; new scores are written to a separate file every few seconds and at an interruption."""
    rows = np.stack(np.divmod(pairs, len(collection.corpus)), axis=1)
    queries, documents = np.unique(rows[:, 0]).tolist(), np.unique(rows[:, 1]).tolist()
    asked = dict(zip(queries, collection.query_texts(queries), strict=True))
    read = dict(zip(documents, collection.document_texts(documents), strict=True))
    texts = [(asked[query], read[document]) for query, document in rows.tolist()]
    done: list[np.ndarray] = []
    written = time.monotonic()
    try:
        read_pairs, cluster = ranker.read(texts), current_cluster()
        if cluster is None or len(read_pairs) < SPREAD_FROM:
            found = ranker.score_batches(read_pairs, label)
        else:
            found = score_spread(ranker, read_pairs, cluster, label)
        for chosen, scores in found:
            done.append(_table(pairs[chosen], scores))
            if time.monotonic() - written > SECONDS:
                _add(folder, done)
                written = time.monotonic()
    finally:
        _add(folder, done)


def _add(folder: Path, done: list[np.ndarray]) -> None:
    """Write scored pairs to a separate file and clear the list."""
    if done:
        number = sum(1 for _ in folder.glob(f"{ADDED}*"))
        _write(folder / f"{ADDED}{number}.npy", np.concatenate(done))
        done.clear()


def _joined(folder: Path) -> np.ndarray:
    """Merge all added files into the table, and return it."""
    table = _read(folder)
    _write(folder / TABLE, table)
    for path in folder.glob(f"{ADDED}*"):
        path.unlink()
    return table


def _read(folder: Path) -> np.ndarray:
    """Return the full table, sorted; after an interrupted merge, a pair may be in two files."""
    rows = np.concatenate([np.zeros(0, ROW), *(np.load(path) for path in sorted(folder.glob("*.npy")))])
    _, places = np.unique(rows["pair"], return_index=True)
    return rows[places]


def _table(pairs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    table = np.empty(len(pairs), ROW)
    table["pair"], table["score"] = pairs, scores
    return table


def _write(path: Path, table: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, table)
