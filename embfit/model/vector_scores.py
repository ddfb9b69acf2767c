"""Scores chosen pairs of a collection by an encoder's vectors, one or several for each text."""

from __future__ import annotations

import numpy as np

from embfit.index.inner_products import pair_scores
from embfit.index.protocol import NOTHING
from embfit.model.embed import embed
from embfit.model.encoder import Encoder
from embfit.progress import progress
from embfit.records import Collection
from embfit.store import Store

BLOCK = 64  # queries whose documents' vectors are in memory at a time


def score_by_vectors(
    encoder: Encoder, collection: Collection, rows: np.ndarray, store: Store, label: str = "scoring pairs"
) -> np.ndarray:
    """Return the scores of pairs ([P] float32), as `Vectors.scores` defines them; -inf of a document without vectors.

    Args:
        encoder: the encoder.
        collection: the collection of the texts.
        rows: [P, 2], a query row and a document row each.
        store: the store that keeps the vectors.
        label: the label of the progress.
    """
    rows = np.asarray(rows, np.int64).reshape(-1, 2)
    asked, where = np.unique(rows[:, 0], return_inverse=True)
    queries = embed(encoder, collection, "query", store, rows=asked.tolist()).vectors
    documents = embed(encoder, collection, "document", store).vectors
    order = np.argsort(where, kind="stable")  # pairs grouped by query
    counts = np.bincount(where, minlength=len(asked))  # [Q]
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    lists = np.full((len(asked), int(counts.max(initial=0))), NOTHING, np.int64)
    lists[where[order], columns] = rows[order, 1]
    found = np.empty(lists.shape, np.float32)
    with progress(label, total=len(asked), unit="queries") as advance:
        for start in range(0, len(asked), BLOCK):
            stop = min(start + BLOCK, len(asked))
            found[start:stop] = pair_scores(queries.part(start, stop), documents, lists[start:stop])
            advance(stop - start)
    scores = np.empty(len(rows), np.float32)
    scores[order] = found[where[order], columns]
    return scores
