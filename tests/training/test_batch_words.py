"""BM25's scores of a batch are those of a search, and a training gets them where its loss asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from datasets import Dataset

from embfit.index import index_words
from embfit.loss import KL, Distillation, InfoNCE, Matryoshka
from embfit.miner import DenseMiner, NoNegatives
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store
from embfit.training.batch_words import batch_words
from embfit.training.batches import ExampleArrays


def test_a_batchs_scores_are_those_of_a_search(
    small_collection: Collection, tiny_encoder: Encoder, store: Store
) -> None:
    texts = [f"{text} {text} unheard-of" for text in small_collection.query_texts()]  # a word twice counts twice
    queries = Dataset.from_dict({"_id": small_collection.query_ids, "text": texts})
    collection = replace(small_collection, queries=queries)
    training_set = DenseMiner(negatives=3, relative_margin=None).mine(collection, tiny_encoder, store)
    words = batch_words(Matryoshka(InfoNCE(lexical=1.0)), training_set, store)
    assert words is not None
    batch = ExampleArrays(training_set, 1).batch(np.array([0, 3, 5]), np.random.default_rng(0))
    found = words.scored(batch).relations.lexical
    assert found is not None
    index = index_words(collection, store, "english")
    expected = [index.scores(text)[batch.documents] for text in collection.query_texts(batch.queries.tolist())]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    assert float(found.max()) > 1
    assert batch.relations.lexical is None


def test_words_are_indexed_for_losses_that_read_them(
    small_collection: Collection, tiny_encoder: Encoder, store: Store
) -> None:
    training_set = NoNegatives().mine(small_collection, tiny_encoder, store)
    assert batch_words(Distillation(InfoNCE(), KL()), training_set, store) is None
    assert "words" not in store.built
    assert batch_words(Distillation(InfoNCE(lexical=0.5), KL()), training_set, store) is not None
    assert "words" in store.built
