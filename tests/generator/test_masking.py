"""Documents without the queries taken from them, and generated queries as splits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embfit.generator import DocumentChoice
from embfit.generator.generated import GeneratedQuery, source_documents
from embfit.generator.masking import mask_positives, masked_texts
from embfit.generator.training_queries import MOST_HELD_OUT, held_out_documents, with_queries
from embfit.miner import NoNegatives
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store


def query(collection: Collection, row: int, words: slice, name: str, masked: bool = True) -> GeneratedQuery:
    [document] = source_documents(collection, [row], DocumentChoice())
    text = " ".join(document.text.split()[words])
    return GeneratedQuery(name, text, document, "span", provenance={"positive": "rest" if masked else None})


def test_a_masked_document_lacks_all_queries_and_is_nobodys_negative(
    small_collection: Collection, tiny_encoder: Encoder, store: Store
) -> None:
    made = [
        query(small_collection, 1, slice(0, 3), "a"),
        query(small_collection, 1, slice(6, 8), "b"),
        query(small_collection, 1, slice(9, 12), "c", masked=False),
        query(small_collection, 8, slice(0, 8), "d"),  # leaves one word
    ]
    texts = masked_texts(made)
    assert texts == {1: "sugar in the a patient with diabetes"}
    collection = with_queries(
        small_collection, {"test": small_collection.qrels["test"]}, {"train": made}, {"train": "x"}
    )
    assert collection.query_ids == ["q10", "q11", "a", "b", "c", "d"]
    mined = NoNegatives().mine(collection, tiny_encoder, store)
    masked = mask_positives(mined, made, texts)
    assert masked.rows["positives"][:] == [[12], [12], [1], [8]]
    assert masked.relevant == {2: {1, 12}, 3: {1, 12}, 4: {1, 12}, 5: {8}}
    assert list(masked.collection.document_texts([12])) == [texts[1]]
    assert masked.facts["masked_positives"] == 2
    assert len(collection.corpus) == 12
    assert mask_positives(mined, made[2:3], {}) is mined


def test_documents_are_held_out_by_their_texts_alone(small_collection: Collection) -> None:
    documents = source_documents(small_collection, range(12), DocumentChoice())
    found = held_out_documents(documents, ["test", "dev"], 0.25, 0)
    assert [len(rows) for rows in found.values()] == [3, 3]
    assert not found["test"] & found["dev"]
    fewer = held_out_documents(documents[1:], ["test"], 3 / 11, 0)["test"]
    assert len(fewer & found["test"]) >= 2
    assert held_out_documents(documents, ["test"], 0.0, 0) == {}
    many = [replace(documents[0], row=row, digest=str(row)) for row in range(10_000)]
    assert len(held_out_documents(many, ["test"], 0.1, 0)["test"]) == MOST_HELD_OUT


@pytest.mark.parametrize("split", ["test", "dev"])
def test_no_query_is_trained_on_that_another_split_has(small_collection: Collection, split: str) -> None:
    train = [query(small_collection, 1, slice(0, 3), "a"), query(small_collection, 2, slice(0, 3), "b")]
    held_out = [replace(train[0], id="h")]
    found = with_queries(small_collection, {}, {"train": train, split: held_out}, {"train": "x", split: "y"})
    assert found.qrels == {"train": {"b": {"d2": 1}}, split: {"h": {"d1": 1}}}
    assert found.facts["generated_queries_removed"] == 1
    assert found.facts["synthetic_splits"] == {split: "y"}
    assert found.facts["queries_from"] == {"train": "x", split: "y"}
