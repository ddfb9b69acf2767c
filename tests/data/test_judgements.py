import pytest

from embfit.data.judgements import merge_queries, normalise, relevant, remove_leaks, seen_queries

TEXTS = {"a": "What is it?", "b": "what  is IT", "c": "What is it?", "d": "Another", "e": "What is it?"}
CONTENTS = {"1": "x", "2": "y", "3": "z", "copy of 1": "x"}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("What is it?", " what\tis  it", True),
        ("ＦＵＬＬ width", "full width", True),
        ("Straße.", "STRASSE", True),
        ("What is C++?", "What is C#?", False),
        ("1.5", "15", False),
    ],
)
def test_normalised_texts(one, other, equal):
    assert (normalise(one) == normalise(other)) is equal


def test_relevant_documents():
    assert relevant({"1": 1, "2": 0, "3": 2}) == ["1", "3"]


def test_queries_of_one_text_are_merged_within_a_split():
    qrels = {"train": {"a": {"1": 1, "2": 0}, "b": {"3": 1}, "c": {"2": 2, "1": 0}}, "test": {"e": {"1": 1}}}
    merged, count = merge_queries(qrels, TEXTS)
    assert merged == {"train": {"a": {"1": 1, "2": 2}, "b": {"3": 1}}, "test": {"e": {"1": 1}}}
    assert count == 1
    assert qrels["train"]["a"] == {"1": 1, "2": 0}  # the input is as it was


def test_training_queries_that_are_evaluated_are_removed():
    qrels = {
        "train": {"a": {"1": 1, "2": 1}, "b": {"copy of 1": 1}, "d": {"1": 1}},
        "test": {"e": {"1": 1, "2": 0}},
        "production": {"c": {"3": 1}},
    }
    cleaned, facts = remove_leaks(qrels, TEXTS, CONTENTS)
    assert cleaned == {**qrels, "train": {"d": {"1": 1}}}
    assert facts == {"leaked_queries_removed": 2, "leaked_pairs_removed": 2}  # a and 1, b and the copy of 1


def test_without_training_nothing_leaks():
    assert remove_leaks({"test": {"a": {"1": 1}}}, TEXTS, CONTENTS)[0] == {"test": {"a": {"1": 1}}}


def test_seen_documents_are_compared_by_text():
    train = {"d": {"1": 1, "2": 0}}
    judged = {"a": {"copy of 1": 1}, "b": {"2": 1}, "c": {"3": 1, "1": 2}, "e": {"1": 0, "3": 1}}
    assert seen_queries(train, judged, CONTENTS) == 2  # a and c
