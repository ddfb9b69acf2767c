"""What is read of the training split: order, copies, and nothing of any other split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from embfit.errors import UserError
from embfit.miner import examples as module
from embfit.miner.examples import training_examples
from embfit.records import Collection
from tests.conftest import make_collection

DOCUMENTS = {"a": "red", "b": "green", "c": "blue", "d": "red", "e": "grey", "f": "grey"}  # d copies a, f copies e
QUERIES = {"q0": "sky", "q1": "grass", "q2": "fire"}


def test_positives_stand_by_grade_and_id_in_the_order_of_queries() -> None:
    qrels = {"train": {"q2": {"c": 1, "b": 2, "a": 1}, "q0": {"e": 1}}}
    examples = training_examples(make_collection(DOCUMENTS, QUERIES, qrels))
    assert examples.queries.tolist() == [0, 2]
    assert [rows.tolist() for rows in examples.positives.lists()] == [[4], [1, 0, 2]]
    assert examples.relevant() == {0: frozenset({4}), 2: frozenset({0, 1, 2})}


def test_judged_negatives_are_kept_unless_their_text_is_a_positive_or_came_before() -> None:
    qrels = {
        "train": {
            "q0": {"a": 1, "b": -1, "c": 0, "d": 0, "e": 0, "f": 0},  # d is a's text, f is e's
            "q1": {"b": 0},  # no positive: no example
            "q2": {"c": 1, "a": 0},
        }
    }
    examples = training_examples(make_collection(DOCUMENTS, QUERIES, qrels))
    assert examples.queries.tolist() == [0, 2]
    assert [rows.tolist() for rows in examples.judged.lists()] == [[2, 4, 1], [0]]  # grade 0 by id, then -1
    assert examples.dropped == 2


def test_a_document_that_is_the_query_itself_is_found() -> None:
    qrels = {"train": {"q0": {"a": 1}, "q1": {"c": 1}, "q2": {"e": 1}}}
    queries = {"q0": "green", "q1": "red", "q2": "fire"}
    examples = training_examples(make_collection(DOCUMENTS, queries, qrels))
    assert [rows.tolist() for rows in examples.own.lists()] == [[1], [0], []]
    assert examples.relevant() == {0: frozenset({0, 1}), 1: frozenset({0, 2}), 2: frozenset({4})}


def test_a_judged_document_that_is_the_query_itself_is_no_negative() -> None:
    examples = training_examples(
        make_collection(DOCUMENTS, {"q0": "green"}, {"train": {"q0": {"a": 1, "b": 0, "c": 0}}})
    )
    assert [rows.tolist() for rows in examples.judged.lists()] == [[2]]
    assert examples.dropped == 1


def test_the_query_itself_is_found_under_a_title_and_by_its_id() -> None:
    corpus = {
        "_id": ["a", "b", "q1", "c", "d"],
        "title": ["Colours", "Plants", "", "Colours", ""],
        "text": ["red", "green", "blue", "red", "Plants green"],
    }
    queries = {"_id": ["q0", "q1", "q2"], "text": ["red", "blue is a colour", "Plants green"]}
    qrels = {"train": {query: {"q1" if query == "q0" else "a": 1} for query in queries["_id"]}}
    made = Collection("small", Dataset.from_dict(corpus), Dataset.from_dict(queries), qrels)
    assert [rows.tolist() for rows in training_examples(made).own.lists()] == [[0], [], [1]]  # d is a copy of b
    same = training_examples(replace(made, exclude_self=True))
    assert [rows.tolist() for rows in same.own.lists()] == [[0], [2], [1]]
    assert same.relevant()[1] == frozenset({0, 2})


def test_no_other_split_is_read() -> None:
    train = {"q0": {"a": 1}}
    other = {"q0": {"b": 1}, "q1": {"c": 1}}
    examples = training_examples(make_collection(DOCUMENTS, QUERIES, {"train": train, "dev": other, "test": other}))
    assert examples.relevant() == {0: frozenset({0})}


@pytest.mark.parametrize("qrels", [{}, {"train": {}}, {"train": {"q0": {"a": 0}}}, {"dev": {"q0": {"a": 1}}}])
def test_no_training_pairs_is_one_clear_line(qrels: dict[str, dict[str, dict[str, int]]]) -> None:
    with pytest.raises(UserError, match=r"^small has no training pairs: .* split train") as error:
        training_examples(make_collection(DOCUMENTS, QUERIES, qrels))
    assert "\n" not in str(error.value)


def test_blocks_are_the_whole_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    qrels = {"train": {"q0": {"a": 1, "b": 1}, "q1": {"c": 1, "e": 0}, "q2": {"a": 1, "b": 0}}}
    whole = training_examples(make_collection(DOCUMENTS, QUERIES, qrels))
    blocks = list(whole.blocks())
    assert [block.queries.tolist() for block in blocks] == [[0, 1], [2]]
    assert [rows.tolist() for block in blocks for rows in block.positives.lists()] == [[0, 1], [2], [0]]
    assert [rows.tolist() for block in blocks for rows in block.judged.lists()] == [[], [4], [1]]
    assert [block.judged.offsets.tolist() for block in blocks] == [[0, 0, 1], [0, 1]]
    assert [whole.places(block).tolist() for block in blocks] == [[0, 1], [2]]


def test_some_of_them_know_their_places() -> None:
    qrels = {"train": {"q0": {"a": 1, "b": 1}, "q1": {"c": 1, "e": 0}, "q2": {"a": 1, "b": 0}}}
    whole = training_examples(make_collection(DOCUMENTS, QUERIES, qrels))
    part = whole.take(np.array([0, 2]))
    assert part.queries.tolist() == [0, 2]
    assert [rows.tolist() for rows in part.positives.lists()] == [[0, 1], [0]]
    assert [rows.tolist() for rows in part.judged.lists()] == [[], [1]]
    assert whole.places(part).tolist() == [0, 2]
