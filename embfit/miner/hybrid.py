"""A training set with the scores of a teacher that needs no model of its own: vectors and words together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.index import ExactIndex, index_words
from embfit.index.language import LanguageChoice, language_of
from embfit.miner.miner import Mines
from embfit.miner.scored import scored_documents, with_teacher_scores
from embfit.model import Encoder, embed, frozen
from embfit.ragged import Ragged
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class HybridMiner:
    """Adds scores of the encoder and BM25 together to another miner's positives and negatives, for distillation.

    The two err on different documents, so their sum tends to rank better than either, and the encoder learns from words
    what its vectors do not tell.

    Args:
        miner: the miner that chooses the negatives.
        scale: the encoder's scores are multiplied by it; 20 suits cosines.
        words: BM25's scores are multiplied by it.
        language: the language of BM25's stemmer and stop words; auto is that of the documents, None uses neither.
    """

    miner: Mines
    scale: Annotated[float, Field(ge=0)] = 20.0
    words: Annotated[float, Field(ge=0)] = 1.0
    language: LanguageChoice = "auto"

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the other miner's training set with the teacher's scores.

        Raises:
            UserError: there is no training pair.
        """
        with frozen(encoder):
            return self.score_added(self.miner.mine(collection, encoder, store), collection, encoder, store)

    def score_added(self, training_set: TrainingSet, mined: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return a training set with the teacher's scores of all its documents; arguments as `MinesWithScores` says.

        BM25 counts words among all documents of the training set, so all its scores are computed again.
        """
        collection, lists = training_set.collection, scored_documents(training_set)
        queries = np.asarray(training_set.rows["query"][:], np.int64)
        counts = np.diff(lists.offsets)
        rows = np.full((len(queries), int(counts.max(initial=1))), -1, np.int64)  # [Q, K], padded
        known = np.arange(rows.shape[1]) < counts[:, None]
        rows[known] = lists.values
        words = index_words(collection, store, language_of(self.language, collection, store, "miner.language=auto"))
        asked = embed(encoder, collection, "query", store, rows=queries.tolist()).vectors
        by_words = words.score(list(collection.query_texts(queries.tolist())), rows)  # [Q, K]
        count = len(mined.corpus)
        first = ExactIndex(embed(encoder, mined, "document", store).vectors)
        by_vectors = first.score(asked, np.where(rows < count, rows, -1))  # [Q, K]
        if len(collection.corpus) > count:
            others = embed(encoder, collection, "document", store, rows=range(count, len(collection.corpus)))
            added = ExactIndex(others.vectors).score(asked, np.where(rows >= count, rows - count, -1))
            by_vectors = np.where(rows >= count, added, by_vectors)
        scores = self.scale * np.where(known, by_vectors, 0) + self.words * np.where(known, by_words, 0)
        return with_teacher_scores(training_set, Ragged(scores[known].astype(np.float32), lists.offsets).lists())
