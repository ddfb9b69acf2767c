"""BM25's scores of the queries and documents of a batch, for losses that add them to the vectors' own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from embfit.index import index_words
from embfit.index.language import language_of
from embfit.records import TrainingSet
from embfit.store import Store
from embfit.training.batches import Batch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class BatchWords:
    """The words of all queries and documents, as sparse matrices from which a batch takes its rows.

    Args:
        counts: how often each query has each word ([Q, W], sparse).
        weights: what each word adds to each document's score ([N, W], sparse).
        digest: identifies both.
    """

    def __init__(self, counts: csr_matrix, weights: csr_matrix, digest: str) -> None:
        self.counts, self.weights, self.digest = counts, weights, digest

    def scored(self, batch: Batch) -> Batch:
        """Return a batch with BM25's scores ([Q, D]) in its relations."""
        scores = (self.counts[batch.queries] @ self.weights[batch.documents].T).toarray()
        lexical = torch.from_numpy(np.ascontiguousarray(scores, np.float32))
        return replace(batch, relations=replace(batch.relations, lexical=lexical))


def batch_words(loss: nn.Module, training_set: TrainingSet, store: Store) -> BatchWords | None:
    """Return the words of a training set if the loss, or a loss inside it, adds BM25's scores; else None."""
    if not any(getattr(part, "reads_words", False) for part in loss.modules()):
        return None
    collection = training_set.collection
    index = index_words(collection, store, language_of("auto", collection, store, "loss.lexical"))
    return BatchWords(index.word_counts(list(collection.query_texts())), index.word_weights(), index.fingerprint)
