"""BM25: the formula by hand, equality with bm25s's own retrieval, and results that never invent a match."""

from __future__ import annotations

import math
from pathlib import Path

import bm25s
import numpy as np
import pytest
from datasets import Dataset

from embfit.errors import UserError
from embfit.index import BM25Index, index_words
from embfit.index.terms import search_terms, words
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.store import Store

CATS = ["A cat sleeps.", "Cats and cats", "The dog sleeps, sleeping dogs sleep", "Hepatitis B"]


def test_scores_are_the_formula_of_lucene() -> None:
    index = BM25Index.build(CATS, k1=1.5, b=0.75)
    # Stems: [cat sleep] [cat cat] [dog sleep sleep dog sleep] [hepat b]: lengths 2, 2, 5, 2, mean 11/4.
    inverse_frequency = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))  # "cat" is in two of four documents
    expected = [
        inverse_frequency * 1 / (1 + 1.5 * (0.25 + 0.75 * 2 / (11 / 4))),
        inverse_frequency * 2 / (2 + 1.5 * (0.25 + 0.75 * 2 / (11 / 4))),
        0,
        0,
    ]
    np.testing.assert_allclose(index.scores("the cat"), expected, rtol=1e-6)


def test_only_documents_that_share_a_word_are_results() -> None:
    index = BM25Index.build(CATS)
    scores, rows = index.search(["cats", "unheard of", "", "hepatitis c"], k=3)
    assert rows.tolist() == [[1, 0, -1], [-1, -1, -1], [-1, -1, -1], [3, -1, -1]]
    assert (scores[rows == -1] == 0).all()
    assert (scores[rows >= 0] > 0).all()
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_further_documents_are_looked_up_in_the_same_scores() -> None:
    index = BM25Index.build(CATS)
    texts, lists = (
        ["cats", "unheard of", "sleeping cats"],
        [Ragged.of([[0, 1], [2], []]), Ragged.of([[3], [], [2, 0, 1]])],
    )
    scores, rows, looked_up = index.search_and_score(texts, 2, lists)
    expected_scores, expected_rows = index.search(texts, 2)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(rows, expected_rows)
    for one, found in zip(lists, looked_up, strict=True):
        pairs = zip(one.owners.tolist(), one.values.tolist(), strict=True)
        assert found.tolist() == [index.scores(texts[owner])[row] for owner, row in pairs]
    chosen = index.score(texts[:2], np.array([[1, 0], [3, -1]]))
    assert chosen.tolist() == [[index.scores("cats")[1], index.scores("cats")[0]], [0, -np.inf]]


def test_single_letters_are_words() -> None:
    index = BM25Index.build(["hepatitis b", "hepatitis c"])
    assert index.search(["hepatitis c"], k=1)[1].tolist() == [[1]]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (None, "A hepatitis-B test, x_1", ["a", "hepatitis", "b", "test", "x_1"]),
        ("hindi", "हिन्दी भाषा में", ["हिन्दी", "भाषा", "में"]),
        ("tamil", "தமிழ் நூல்.", ["தமிழ்", "நூல்"]),
        ("arabic", "كِتَابٌ جديد", ["كِتَابٌ", "جديد"]),
        ("turkish", "İstanbul IĞDIR", ["istanbul", "ığdır"]),
        (None, "İstanbul IS", ["istanbul", "is"]),
        ("german", "Ha\u0308user, Straße", ["h\u00e4user", "straße"]),
        (None, "❤\ufe0f heart", ["heart"]),
    ],
)
def test_words_of_any_script(language: str | None, text: str, expected: list[str]) -> None:
    assert words(text, language) == expected


def test_words_of_one_stem_in_devanagari_find_each_other() -> None:
    index = BM25Index.build(["लबालब भरा", "बिल्ली घर", "किताब", "किताबें"], language="hindi")
    assert index.search(["किताबों", "बुलबुल"], k=3)[1].tolist() == [[2, 3, -1], [-1, -1, -1]]


def test_ties_go_to_the_lowest_rows() -> None:
    index = BM25Index.build(["apple"] * 50 + ["apple apple"] + ["pear"] * 60)
    assert index.search(["apples"], k=4)[1].tolist() == [[50, 0, 1, 2]]


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire"])
def test_equals_the_retrieval_of_bm25s(method: str) -> None:
    random = np.random.default_rng(0)
    words = np.array([f"word{number}x" for number in range(60)])
    texts = [" ".join(random.choice(words, random.integers(1, 30))) for _ in range(200)]
    queries = [" ".join(random.choice(words, 4)) for _ in range(30)]
    scores, _ = BM25Index.build(texts, language=None, k1=1.2, b=0.6, method=method).search(queries, k=10)  # type: ignore[arg-type]

    reference = bm25s.BM25(k1=1.2, b=0.6, method=method)
    reference.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
    _, wanted = reference.retrieve(
        bm25s.tokenize(queries, stopwords=None, show_progress=False), k=10, show_progress=False
    )
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)


def test_languages_stem_differently() -> None:
    french = BM25Index.build(["les chevaux mangent", "le chat dort"], language="french")
    assert french.search(["cheval mangeait", "le la les"], k=2)[1].tolist() == [[0, -1], [-1, -1]]
    plain = BM25Index.build(["les chevaux mangent", "le chat dort"], language=None)
    assert plain.search(["mangeait", "le"], k=2)[1].tolist() == [[-1, -1], [1, -1]]


def test_what_cannot_be_indexed_or_searched_is_said() -> None:
    with pytest.raises(UserError, match="BM25 finds no word in any of the 2 documents"):
        BM25Index.build(["...", "the"])
    with pytest.raises(ValueError, match="k=3 is not between 1 and the index's 2 documents"):
        BM25Index.build(["a1", "b1"]).search(["a1"], k=3)


def test_a_saved_index_gives_the_same_results(tmp_path: Path) -> None:
    index = BM25Index.build(CATS, language="english", k1=0.9)
    index.save(tmp_path)
    loaded = BM25Index.load(tmp_path)
    assert isinstance(loaded.scorer.scores["data"], np.memmap)
    for wanted, got in zip(index.search(CATS, k=4), loaded.search(CATS, k=4), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_the_store_keeps_an_index_per_corpus_and_settings(tmp_path: Path) -> None:
    def collection(texts: list[str]) -> Collection:
        ids = [str(row) for row in range(len(texts))]
        corpus = Dataset.from_dict({"_id": ids, "title": [""] * len(texts), "text": texts})
        return Collection("cats", corpus, Dataset.from_dict({"_id": ["q"], "text": ["cat"]}), {})

    store = Store(tmp_path)
    index_words(collection(CATS), store)
    later = Store(tmp_path)
    assert index_words(collection(CATS), later).search(["cats"], k=2)[1].tolist() == [[1, 0]]
    assert (store.built, later.reused) == (["words"], ["words"])
    index_words(collection(CATS), store, b=0.5)
    index_words(collection(CATS[::-1]), store)
    assert store.built == ["words"] * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("北京 BM25 search", ["北", "京", "北京", "bm25", "search"]),
        ("更换水龙头", ["更", "换", "水", "龙", "头", "更换", "换水", "水龙", "龙头"]),
        ("コーヒー豆", ["コ", "ー", "ヒ", "ー", "豆", "コー", "ーヒ", "ヒー", "ー豆"]),
        ("API的文档v2", ["api", "的", "文", "档", "的文", "文档", "v2"]),
        ("서울 날씨", ["서울", "날씨"]),  # Korean has spaces
        ("น้ำ", ["น้", "ำ", "น้ำ"]),
        ("ພາສາ", ["ພ", "າ", "ສ", "າ", "ພາ", "າສ", "ສາ"]),
        ("ភាសា", ["ភា", "សា", "ភាសា"]),
        ("हिन्दी naïve", ["हिन्दी", "naïve"]),
    ],
)
def test_scripts_without_spaces_are_searched_by_characters_and_pairs_of_them(text: str, expected: list[str]) -> None:
    assert search_terms(text) == expected


def test_characters_of_scripts_without_spaces_count_as_words() -> None:
    assert words("水龙头 tap") == ["水", "龙", "头", "tap"]


def test_chinese_is_found_without_a_dictionary() -> None:
    index = BM25Index.build(["关于更换水龙头的密封圈。", "关于北京的长城。", "An English page"], language=None)
    _, rows = index.search(["如何换水龙头？", "长城在哪里", "north"], k=1)
    assert rows[:, 0].tolist() == [0, 1, -1]
