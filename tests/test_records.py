from __future__ import annotations

from dataclasses import replace

import numpy as np
from datasets import Dataset

from embfit.records import Collection
from tests.conftest import make_collection


def test_document_text_is_title_space_text() -> None:
    corpus = Dataset.from_dict({"_id": ["a", "b"], "title": ["Heart", ""], "text": ["pumps blood", "filters"]})
    collection = Collection("c", corpus, Dataset.from_dict({"_id": [], "text": []}), {})
    assert list(collection.document_texts()) == ["Heart pumps blood", "filters"]
    assert list(collection.document_texts([1])) == ["filters"]


def test_copies_share_their_first_row() -> None:
    collection = make_collection({"a": "x", "b": "y", "c": "x", "d": "x"}, {}, {})
    assert collection.document_copies.tolist() == [0, 1, 0, 0]


def test_copies_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    texts = [(str(title), str(text)) for title, text in random.integers(0, 9, (500, 2))]
    titles, bodies = zip(*texts, strict=True)
    corpus = {"_id": [f"d{row}" for row in range(500)], "title": titles, "text": bodies}
    collection = Collection("c", Dataset.from_dict(corpus), Dataset.from_dict({"_id": [], "text": []}), {})
    assert collection.document_copies.tolist() == [texts.index(one) for one in texts]
    part = replace(collection, corpus=collection.corpus.select(range(100, 500)))  # whose rows are not the table's
    assert part.document_copies.tolist() == [texts[100:].index(one) for one in texts[100:]]
    assert make_collection({}, {}, {}).document_copies.tolist() == []


def test_digests_follow_content() -> None:
    documents, queries = {"a": "x", "b": "yz"}, {"q": "x"}
    one = make_collection(documents, queries, {"test": {"q": {"a": 1}}})
    assert one.corpus_digest == make_collection(documents, {}, {}).corpus_digest
    assert one.corpus_digest != make_collection({"a": "xy", "b": "z"}, {}, {}).corpus_digest
    assert one.queries_digest != make_collection(documents, {"r": "x"}, {}).queries_digest
    assert one.qrels_digest("test") != make_collection(documents, queries, {"test": {"q": {"a": 2}}}).qrels_digest(
        "test"
    )
