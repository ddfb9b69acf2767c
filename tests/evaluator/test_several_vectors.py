"""A model of several vectors a text is evaluated by the code that evaluates one of one vector each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from embfit.errors import ConfigError
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import dense
from embfit.evaluator.validation import validate
from embfit.records import Collection, Embeddings
from embfit.store import Store
from embfit.vectors import Vectors
from tests.evaluator.measured import evaluate


class Words:
    """An encoder with one vector a word, drawn from the word itself; a text has as many as it has words."""

    width = 16

    def fingerprint(self, kind: str) -> str:
        return f"words of a {kind}"

    def embed(self, texts: Iterable[str], kind: str) -> Vectors:
        split = [text.split() for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(words) for words in split])]).astype(np.int64)
        return Vectors(np.array([vector(word) for words in split for word in words], np.float32), starts)


def vector(word: str) -> np.ndarray:
    """A word's vector of unit length."""
    drawn = np.random.default_rng(list(word.encode())).standard_normal(16)
    return drawn / np.linalg.norm(drawn)


def embed(
    encoder: Words, collection: Collection, kind: str, store: Store, rows: Sequence[int] | None = None
) -> Embeddings:
    texts = collection.query_texts(rows) if kind == "query" else collection.document_texts()
    return Embeddings(encoder.embed(texts, kind), encoder.fingerprint(kind))


@pytest.fixture(autouse=True)
def words_are_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "embed", embed)


def by_hand(collection: Collection, query: str, dims: int) -> dict[str, float]:
    """Each document's score: the mean over the query's words of the best cosine with a word of the document."""
    (text,) = collection.query_texts([collection.query_rows[query]])

    def cut(word: str) -> np.ndarray:
        kept = vector(word).astype(np.float32)[:dims].astype(float)
        return kept / np.linalg.norm(kept)

    return {
        document: float(np.mean([max(cut(one) @ cut(other) for other in read.split()) for one in text.split()]))
        for document, read in zip(collection.document_ids, collection.document_texts(), strict=True)
    }


def test_evaluation_equals_a_loop_by_hand(small_collection: Collection, store: Store) -> None:
    encoder: Any = Words()
    found = evaluate(Retrieval(dims=[4]), encoder, small_collection, store)
    for dims, evaluation in {16: found, 4: found.dims[4]}.items():
        for query in small_collection.qrels["test"]:
            scores = by_hand(small_collection, query, dims)
            expected = sorted(scores, key=lambda name: (-scores[name], name))
            assert [name for name, _ in evaluation.ranking.documents[query]] == expected
            assert dict(evaluation.ranking.documents[query]) == pytest.approx(scores, abs=1e-6)
            place = expected.index(query.replace("q", "d")) + 1
            assert evaluation.per_query["mrr@10"][query] == (1 / place if place <= 10 else 0)
    assert found.metrics["mrr@10"] == 1.0  # a query is its document's first words


def test_validation_equals_evaluation(small_collection: Collection, store: Store) -> None:
    encoder: Any = Words()
    evaluated = evaluate(Retrieval(dims=[4]), encoder, small_collection, store, split="dev")
    validated = validate(Retrieval(dims=[4]).judging, encoder, small_collection)
    assert validated.metrics == {**evaluated.metrics, "ndcg@10/4": evaluated.dims[4].metrics["ndcg@10"]}


def test_a_funnel_is_for_one_vector_a_text(small_collection: Collection, store: Store) -> None:
    encoder: Any = Words()
    with pytest.raises(ConfigError, match=r"evaluator.funnel needs one vector a text, and the model has several"):
        evaluate(Retrieval(funnel=[10]), encoder, small_collection, store)
