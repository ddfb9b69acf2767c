"""Documents without the queries taken from them, and generated queries as splits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embfit.generator import DocumentChoice
from embfit.generator.masking import mask_positives, masked_texts
from embfit.generator.protocol import GeneratedQuery, source_documents
from embfit.generator.training_queries import (
    MOST_HELD_OUT,
    held_out_documents,
    with_queries,
    without_documents,
)
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
    many = [replace(documents[0], row=row, digest=str(row), text=str(row)) for row in range(10_000)]
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


def test_documents_that_begin_alike_share_their_queries_and_their_split(small_collection: Collection) -> None:
    documents = source_documents(small_collection, range(12), DocumentChoice())
    alike = [replace(document, text=documents[document.row // 2].text) for document in documents]
    found = held_out_documents(alike, ["test", "dev"], 0.2, 0)
    assert all(row ^ 1 in rows for rows in found.values() for row in rows)
    assert [len(rows) for rows in found.values()] == [4, 4]
    one = query(small_collection, 4, slice(0, 3), "a")
    both = with_queries(small_collection, {}, {"train": [one, replace(one, document=documents[5])]}, {"train": "x"})
    assert both.qrels == {"train": {"a": {"d4": 1, "d5": 1}}}


def test_a_query_of_several_documents_finds_each_of_them_masked(
    small_collection: Collection, tiny_encoder: Encoder, store: Store
) -> None:
    one = query(small_collection, 1, slice(0, 3), "a")
    [other] = source_documents(small_collection, [2], DocumentChoice())
    made = [one, replace(one, id="b", document=replace(other, body=f"{one.text} {other.body}"))]
    collection = with_queries(small_collection, {}, {"train": made}, {"train": "x"})
    assert collection.qrels == {"train": {"a": {"d1": 1, "d2": 1}}}
    masked = mask_positives(NoNegatives().mine(collection, tiny_encoder, store), made, masked_texts(made))
    assert masked.rows["positives"][:] == [[12, 13]]
    assert masked.facts["masked_positives"] == 2


def test_what_asks_for_held_out_documents_does_not_train(small_collection: Collection) -> None:
    judged = {"q0": {"d0": 1}, "q1": {"d1": 1, "d2": 1, "d3": 0}, "q3": {"d3": 1}}
    assert without_documents(small_collection, judged, {0, 1}) == ({"q1": {"d2": 1, "d3": 0}, "q3": {"d3": 1}}, 1)
