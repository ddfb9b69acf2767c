"""A cross-encoder's scores of a collection's pairs, kept in the store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from embfit.model.cross_encoder import CrossEncoder
from embfit.records import Collection
from embfit.store import Store

VERSION = 1  # of the store's scores


def score_pairs(
    ranker: CrossEncoder, collection: Collection, rows: np.ndarray, store: Store, label: str = "scoring pairs"
) -> np.ndarray:
    """Return the scores ([P] float32) of pairs, from the store if the same weights have scored them before.

    Args:
        ranker: scores them, all queries' pairs sorted by length together.
        collection: has the texts.
        rows: [P, 2], a query row and a document row each; a pair that stands there twice is scored once.
        store: keeps the scores, under weights, settings and texts.
        label: of the progress.
    """
    unique, where = np.unique(np.asarray(rows, np.int64).reshape(-1, 2), axis=0, return_inverse=True)
    key = {
        "ranker": ranker.fingerprint,
        "corpus": collection.corpus_digest,
        "queries": collection.queries_digest,
        "pairs": hashlib.sha256(unique.tobytes()).hexdigest(),
    }

    def build(folder: Path) -> None:
        queries, documents = np.unique(unique[:, 0]).tolist(), np.unique(unique[:, 1]).tolist()
        asked = dict(zip(queries, collection.query_texts(queries), strict=True))
        read = dict(zip(documents, collection.document_texts(documents), strict=True))
        texts = [(asked[query], read[document]) for query, document in unique.tolist()]
        np.save(folder / "scores.npy", ranker.score(texts, label))

    folder = store.entry("scores", key, build, version=VERSION)
    found: np.ndarray = np.load(folder / "scores.npy")[where.reshape(-1)]
    return found
