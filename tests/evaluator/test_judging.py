"""A qrels file in the place of a split's own judgements."""

from dataclasses import replace
from pathlib import Path

import pytest

from embfit.errors import UserError
from embfit.evaluator.judging import judged_by, judgements
from tests.conftest import make_collection

DOCUMENTS = {"a": "one", "b": "two", "c": "one", "q4": "three"}
QUERIES = {"t": "train", "q1": "Same text?", "q2": "same text", "q3": "another", "q4": "itself"}
QRELS = {"train": {"t": {"a": 1}}, "test": {"q3": {"b": 1}}}
FACTS = {"documents": 4, "test_queries": 1, "test_pairs": 1, "test_not_relevant": 0, "test_queries_seen_in_train": 0}


@pytest.fixture
def qrels(tmp_path: Path) -> Path:
    path = tmp_path / "judged.qrels"
    path.write_text("q1\ta\t1\nq1\tb\t0\nq2\tb\t2\nq3\tc\t1\nq4\tq4\t1\n")
    return path


def test_it_is_merged_and_counted_as_the_data_is(qrels: Path) -> None:
    collection = replace(make_collection(DOCUMENTS, QUERIES, QRELS), facts=FACTS)
    found = judged_by(collection, "test", qrels)
    assert found.qrels["train"] == QRELS["train"]
    assert found.qrels["test"] == {"q1": {"a": 1, "b": 2}, "q3": {"c": 1}, "q4": {"q4": 1}}
    assert found.facts == {
        "documents": 4,
        "test_queries": 3,
        "test_pairs": 4,
        "test_not_relevant": 0,
        "test_queries_seen_in_train": 2,  # q1 by `a` itself, q3 by its copy
        "qrels_file": str(qrels),
        "qrels_file_queries_merged": 1,
    }


def test_a_querys_own_document_is_left_out_where_the_data_leaves_it_out(qrels: Path) -> None:
    collection = replace(make_collection(DOCUMENTS, QUERIES, QRELS), exclude_self=True)
    assert list(judgements(judged_by(collection, "test", qrels), "test")) == ["q1", "q3"]


def test_strange_ids_are_named(qrels: Path) -> None:
    collection = make_collection(DOCUMENTS, QUERIES, QRELS)
    qrels.write_text("q9\ta\t1\n")
    with pytest.raises(UserError, match=r"judged.qrels: 'q9' is not a query of"):
        judged_by(collection, "test", qrels)
    qrels.write_text("q1\tz\t1\n")
    with pytest.raises(UserError, match=r"query 'q1' judges 'z', which is not a document of"):
        judged_by(collection, "test", qrels)
