"""The evaluator over a real encoder and its embeddings, against the plainest loop there is."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from embfit.evaluator import Retrieval
from embfit.evaluator.validation import validate
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store
from tests.evaluator.measured import evaluate


def test_the_ranking_is_that_of_a_plain_loop(tiny_encoder: Encoder, small_collection: Collection, store: Store) -> None:
    evaluation = evaluate(Retrieval(), tiny_encoder, small_collection, store)
    documents = tiny_encoder.encode(small_collection.document_texts(), "document")
    for query in small_collection.qrels["test"]:
        (vector,) = tiny_encoder.encode(small_collection.query_texts([small_collection.query_rows[query]]), "query")
        scores = {name: float(vector @ row) for name, row in zip(small_collection.document_ids, documents, strict=True)}
        expected = sorted(scores, key=lambda name: (-scores[name], name))
        assert [name for name, _ in evaluation.ranking.documents[query]] == expected
        assert dict(evaluation.ranking.documents[query]) == pytest.approx(scores, abs=1e-6)
        place = expected.index(query.replace("q", "d")) + 1
        assert evaluation.per_query["mrr@10"][query] == (1 / place if place <= 10 else 0)


def test_a_second_run_reuses_and_new_weights_do_not(
    make_encoder: Callable[..., Encoder], small_collection: Collection, store: Store
) -> None:
    retriever = Retrieval(dims=[8, 16])
    first = evaluate(retriever, make_encoder(), small_collection, store)
    again = evaluate(retriever, make_encoder(), small_collection, store)
    assert (again.ranking, again.dims[8].ranking) == (first.ranking, first.dims[8].ranking)
    assert again.facts["reused"]
    tuned = make_encoder()
    with torch.no_grad():
        tuned.backbone.embeddings.word_embeddings.weight[20:] += 0.1
    assert not evaluate(retriever, tuned, small_collection, store).facts["reused"]


def test_validation_agrees_with_evaluation(tiny_encoder: Encoder, small_collection: Collection, store: Store) -> None:
    evaluated = evaluate(Retrieval(), tiny_encoder, small_collection, store, split="dev")
    assert validate(Retrieval().judging, tiny_encoder, small_collection).metrics == dict(evaluated.metrics)


def test_dimensions_are_slices_of_one_embedding(
    tiny_encoder: Encoder, small_collection: Collection, store: Store
) -> None:
    evaluation = evaluate(Retrieval(dims=[8]), tiny_encoder, small_collection, store)
    assert store.built.count("embeddings") == 2  # queries and documents, for both widths
    rows = [small_collection.query_rows[query] for query in small_collection.qrels["test"]]
    queries = tiny_encoder.encode(small_collection.query_texts(rows), "query")[:, :8]
    documents = tiny_encoder.encode(small_collection.document_texts(), "document")[:, :8]
    cosine = (queries @ documents.T) / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(documents, axis=1))
    for row, query in zip(cosine, small_collection.qrels["test"], strict=True):
        expected = dict(zip(small_collection.document_ids, row.tolist(), strict=True))
        assert dict(evaluation.dims[8].ranking.documents[query]) == pytest.approx(expected, abs=1e-5)
