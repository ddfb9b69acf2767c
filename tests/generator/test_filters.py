"""What filters drop, and in which order; the round trip by words and by vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embfit.errors import UserError
from embfit.generator import DocumentChoice, Filters
from embfit.generator.filter_marks import FilteredText
from embfit.generator.text_checks import longest_run, mentions_document
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store
from embfit.vectors import Vectors
from tests.conftest import TEXTS, make_collection

WORDS = Filters(similar=None, rankers=("bm25",), copy_words=4)


@pytest.fixture
def collection() -> Collection:
    return make_collection({f"d{row}": text for row, text in enumerate([*TEXTS, TEXTS[0]])}, {}, {})


def never_loaded() -> Encoder:
    raise AssertionError("no filter asks for vectors")


def written(*rows: tuple[str, int]) -> list[FilteredText]:
    return [FilteredText(text, row, TEXTS[row % len(TEXTS)]) for text, row in rows]


def test_each_filter_drops_what_it_is_for(collection: Collection, tmp_path: Path) -> None:
    asked = written(
        ("what pumps blood", 0),
        ("heart", 0),
        ("I'm sorry, but the heart pumps blood", 0),
        ("what does this document say of the heart", 0),
        ("Is the heart a pump?", 0),
        ("the heart pumps blood through arteries", 0),
        ("What pumps  blood?", 0),
        *[("blood of patients", row) for row in (1, 4, 7, 11)],
        ("antibiotics against a virus", 9),
        ("bile and toxins", 6),
        ("Veins", 0),
    )
    marks = WORDS.apply(asked, collection, ["is the heart a pump", "veins"], never_loaded, Store(tmp_path))
    assert marks.dropped_by == [
        None, "form", "form", "mention", "leak", "copy", "duplicate", *["general"] * 4, "round_trip", None, "leak",
    ]  # fmt: skip
    assert marks.counts == {
        "form": 2, "improbable": 0, "mention": 1, "language": 0, "leak": 2, "copy": 1, "duplicate": 1, "general": 4,
        "similar": 0, "round_trip": 1, "cross_encoder": 0, "judge": 0,
    }  # fmt: skip
    assert marks.kept == 2
    assert marks.ranks["bm25"][0] == 1
    assert marks.ranks["bm25"][11:] == [None, 1, None]
    assert marks.runs[5] == 6
    loose = Filters(similar=None, round_trip=None, copy_words=None, general=9, mention=False, min_words=1)
    again = loose.apply(asked, collection, [], never_loaded, Store(tmp_path))
    assert [mark for mark in again.dropped_by if mark] == ["form", "duplicate"]


def test_what_a_model_did_not_end_or_holds_for_improbable_is_dropped(collection: Collection, tmp_path: Path) -> None:
    [asked] = written(("what pumps blood", 0))
    several = [
        replace(asked, finished=False),
        replace(asked, log_probability=-2.6),
        replace(asked, log_probability=-2.4),
    ]
    marks = WORDS.apply(several, collection, [], never_loaded, Store(tmp_path))
    assert marks.dropped_by == ["form", "improbable", None]
    kept = replace(WORDS, log_probability=None).apply(several[1:2], collection, [], never_loaded, Store(tmp_path))
    assert kept.dropped_by == [None]


def test_a_copy_of_the_document_counts_as_the_document(collection: Collection, tmp_path: Path) -> None:
    marks = WORDS.apply(written(("heart arteries veins", 12)), collection, [], never_loaded, Store(tmp_path))
    assert marks.ranks["bm25"] == [1]  # row 0, which has the same text


def test_vectors_tell_what_is_alike(collection: Collection, tiny_encoder: Encoder, tmp_path: Path) -> None:
    filters = Filters(similar=0.9999, rankers=("dense",), round_trip=13, copy_words=None)
    asked = written((f"{TEXTS[2]} x", 2), ("lungs and oxygen", 2), (f"{TEXTS[2]} X", 2))
    marks = filters.apply(asked, collection, [], lambda: tiny_encoder, Store(tmp_path))
    assert marks.dropped_by == [None, None, "duplicate"]
    same = Filters(similar=0.01, rankers=("dense",), round_trip=13, copy_words=None)
    marks = same.apply(asked[:2], collection, [], lambda: tiny_encoder, Store(tmp_path))
    assert marks.dropped_by == [None, "similar"]
    assert all(1 <= rank <= 13 for rank in marks.ranks["dense"])


def test_runs_of_words() -> None:
    assert longest_run(["a", "b", "c", "x"], ["z", "a", "b", "c", "d"]) == 3
    assert longest_run(["ab"], ["a", "b", "abc"]) == 0
    assert longest_run([], ["a"]) == 0
    assert longest_run(["a"] * 5, ["a"] * 3) == 3


@pytest.mark.parametrize("query", ["what does this study find", "what the authors show", "according to the text, who"])
def test_queries_about_the_document_itself(query: str) -> None:
    assert mentions_document(query)
    assert not mentions_document("how to open a document in a text editor")


@pytest.mark.parametrize(
    ("query", "foreign"),
    [
        ("Welche Nebenwirkungen hat Insulin?", True),
        ("糖尿病的治疗方法", True),
        ("how to open a file", False),
        ("insulin", False),  # a word of many languages
        ("naïve Bayes", False),
        ("1990 2000 2010 2020", False),  # of no language
        ("ISO 9001 ISO 27001 audit", False),
        ("pasta carbonara recipe", False),
    ],
)
def test_queries_in_another_language(query: str, foreign: bool, collection: Collection, tmp_path: Path) -> None:
    asked = [FilteredText(query, 0, TEXTS[0])]
    english = Filters(similar=None, round_trip=None, languages=("en",), min_words=1)
    marks = english.apply(asked, collection, [], never_loaded, Store(tmp_path))
    assert marks.dropped_by == ["language" if foreign else None]
    both = replace(english, languages=("en", "de", "zh"))
    assert both.apply(asked, collection, [], never_loaded, Store(tmp_path)).kept == 1


def test_values_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="languages: xx is unknown; write ISO 639-1 codes"):
        Filters(languages=("en", "xx"))
    with pytest.raises(ValueError, match="languages is empty"):
        Filters(languages=())
    with pytest.raises(ValueError, match="min_words=9 is above max_words=3"):
        Filters(min_words=9, max_words=3)
    with pytest.raises(ValueError, match="rankers is empty"):
        Filters(rankers=())


def test_documents_are_drawn_from_every_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred documents of one subject and forty of another: twelve are drawn in proportion."""
    monkeypatch.setattr("embfit.generator.documents.PER_CLUSTER", 120)  # two clusters
    texts = {f"d{row}": f"document number {row} about a subject" for row in range(240)}
    collection = make_collection(texts, {}, {})
    vectors = np.where(np.arange(240)[:, None] < 200, [[1.0, 0.0]], [[0.0, 1.0]]) + np.random.default_rng(0).normal(
        0, 0.01, (240, 2)
    )
    choice = DocumentChoice(limit=12, min_words=3)
    rows = choice.choose(collection, lambda chosen: Vectors(vectors[chosen]), 0)
    assert len(set(rows.tolist())) == 12
    assert (np.diff(rows) > 0).all()
    assert (rows >= 200).sum() == 2
    drawn = DocumentChoice(limit=12, sample="random", min_words=3).choose(collection, lambda _: Vectors(vectors[:0]), 0)
    assert len(set(drawn.tolist())) == 12
    assert DocumentChoice(min_words=3).choose(collection, lambda _: Vectors(vectors[:0]), 0).tolist() == list(
        range(240)
    )


def test_short_documents_copies_and_those_of_examples_get_no_queries(collection: Collection) -> None:
    rows = DocumentChoice(min_words=8).choose(collection, lambda _: Vectors(np.empty((0, 0))), 0, [2])
    assert rows.tolist() == [row for row, text in enumerate(TEXTS) if len(text.split()) >= 8 and row != 2]
    assert DocumentChoice(max_words=3).read("a b c d") == "a b c"
    with pytest.raises(UserError, match="none of the 13 documents has the 99 words"):
        DocumentChoice(min_words=99).choose(collection, lambda _: Vectors(np.empty((0, 0))), 0)
