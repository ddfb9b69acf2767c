import pytest

from embfit.data.judgements import merge_queries, relevant, remove_leaks, seen_queries
from embfit.text_digests import normalise

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
        ("?", "!", False),
    ],
)
def test_normalised_texts(one, other, equal):
    assert (normalise(one) == normalise(other)) is equal


def test_relevant_documents():
    assert relevant({"1": 1, "2": 0, "3": 2}) == ["1", "3"]


def test_variants_of_a_query_are_merged_within_a_split():
    qrels = {
        "train": {"a": {"1": 1, "2": 0}, "b": {"3": 1}, "c": {"2": 2, "1": 0}, "d": {"2": 1}},
        "test": {"e": {"1": 1}, "b": {"2": 1}},
    }
    merged, count = merge_queries(qrels, TEXTS)
    assert merged == {"train": {"a": {"1": 1, "2": 2, "3": 1}, "d": {"2": 1}}, "test": {"e": {"1": 1, "2": 1}}}
    assert count == 3
    assert qrels["train"]["a"] == {"1": 1, "2": 0}  # the input is as it was


def test_training_queries_that_are_evaluated_are_removed():
    qrels = {
        "train": {"a": {"1": 1, "2": 1}, "b": {"copy of 1": 1}, "d": {"1": 1}},
        "test": {"e": {"1": 1, "2": 0}},
        "production": {"c": {"3": 1}},
    }
    cleaned, facts = remove_leaks(qrels, TEXTS, CONTENTS)
    assert cleaned == {**qrels, "train": {"d": {"1": 1}}}
    shared = facts.pop("training_queries_also_in")
    assert sum(shared.values()) >= 2
    assert facts == {"leaked_queries_removed": 2, "leaked_pairs_removed": 2, "dev_queries_removed": 0}  # 1 and its copy


def test_dev_queries_that_are_reported_are_removed():
    qrels = {"train": {"a": {"1": 1}}, "dev": {"b": {"1": 1}, "d": {"2": 1}}, "production": {"e": {"1": 1}}}
    cleaned, facts = remove_leaks(qrels, TEXTS, CONTENTS)
    assert cleaned == {"train": {}, "dev": {"d": {"2": 1}}, "production": {"e": {"1": 1}}}
    shared = facts.pop("training_queries_also_in")
    assert max(shared.values()) == 1
    assert facts == {"leaked_queries_removed": 1, "leaked_pairs_removed": 1, "dev_queries_removed": 1}
    assert remove_leaks({"dev": qrels["dev"]}, TEXTS, CONTENTS)[0] == {"dev": qrels["dev"]}


def test_a_dev_split_with_nothing_of_its_own_is_none():
    qrels = {"train": {"d": {"1": 1}}, "dev": {"a": {"1": 1}}, "test": {"b": {"1": 1}}}
    assert remove_leaks(qrels, TEXTS, CONTENTS)[0] == {"train": {"d": {"1": 1}}, "test": {"b": {"1": 1}}}


def test_without_training_nothing_leaks():
    assert remove_leaks({"test": {"a": {"1": 1}}}, TEXTS, CONTENTS)[0] == {"test": {"a": {"1": 1}}}


def test_seen_documents_are_compared_by_text():
    train = {"d": {"1": 1, "2": 0}}
    judged = {"a": {"copy of 1": 1}, "b": {"2": 1}, "c": {"3": 1, "1": 2}, "e": {"1": 0, "3": 1}}
    assert seen_queries(train, judged, CONTENTS) == 2  # a and c
