"""Search by meaning, by words and by both, over all documents and over some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

import embfit
from embfit.bundle import BundleVersions, Searcher, open_bundle, searching
from embfit.bundle.documents import matching_rows
from embfit.bundle.searching import rerank
from embfit.errors import UserError
from embfit.index import BM25Index, ExactIndex, TokenBuilder, TokenIndex
from embfit.model import CrossEncoder, Encoder
from embfit.records import Collection
from embfit.vectors import Vectors
from tests.bundle.conftest import Make
from tests.conftest import TEXTS, new_late_encoder

QUERY = "the blood in the lungs"


@pytest.fixture
def searcher(tiny_encoder: Encoder, small_collection: Collection) -> Searcher:
    index = ExactIndex(tiny_encoder.embed(TEXTS, "document"))
    return Searcher(tiny_encoder, index, small_collection, BM25Index.build(TEXTS))


def test_vectors_that_are_there_are_not_made_again(searcher: Searcher) -> None:
    expected = searcher.search([QUERY], 4)
    vectors = searcher.encoder.embed([QUERY], "query")
    found = replace(searcher, encoder=None).search([QUERY], 4, vectors=vectors)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[1], expected[1])


def test_words(searcher: Searcher) -> None:
    scores, rows = searcher.search([QUERY, "xylophone"], 12, "words")
    having = {row for row, text in enumerate(TEXTS) if {"blood", "lungs"} & {*text.replace(",", "").split()}}
    assert {*rows[0].tolist()} == having | {-1}
    assert rows[0, 0] == 4  # alone has both words
    assert (rows[1] == -1).all()
    assert (scores[1] == 0).all()
    with pytest.raises(UserError, match=r"no BM25 index; make one with bundle\.words=true"):
        replace(searcher, words=None).search([QUERY], 3, "words")


def test_hybrid_adds_up_reciprocal_ranks(searcher: Searcher) -> None:
    (_, dense), (_, words) = searcher.search([QUERY], 12), searcher.search([QUERY], 12, "words")
    expected: dict[int, float] = {}
    for ranked in (dense[0].tolist(), [row for row in words[0].tolist() if row >= 0]):
        for place, row in enumerate(ranked, 1):
            expected[row] = expected.get(row, 0.0) + 1 / (60 + place)
    scores, rows = searcher.search([QUERY], 5, "hybrid")
    order = sorted(expected, key=lambda row: (-expected[row], f"d{row}"))[:5]
    assert rows[0].tolist() == order
    assert scores[0].tolist() == pytest.approx([expected[row] for row in order])


@pytest.mark.parametrize("scanned", [20_000, 0], ids=["each scored", "index asked for more"])
@pytest.mark.parametrize("mode", ["dense", "words", "hybrid"])
def test_of_some_documents_it_finds_what_a_search_of_those_alone_would(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, mode: str, scanned: int
) -> None:
    monkeypatch.setattr(searching, "SCANNED", scanned)
    allowed = np.array([2, 3, 4, 9])
    all_scores, all_rows = searcher.search([QUERY, "heart"], 12, mode)  # type: ignore[arg-type]
    scores, rows = searcher.search([QUERY, "heart"], 3, mode, allowed)  # type: ignore[arg-type]
    for query in range(2):
        expected = [row for row in all_rows[query].tolist() if row in allowed][:3]
        assert rows[query].tolist() == expected + [-1] * (3 - len(expected))
        if mode != "hybrid":  # whose ranks are other ones
            places = [all_rows[query].tolist().index(row) for row in expected]
            assert scores[query, : len(expected)].tolist() == pytest.approx(all_scores[query, places].tolist())


def test_more_than_there_are_nothing_and_too_few(searcher: Searcher) -> None:
    assert searcher.search([QUERY], 99)[1].shape == (1, 12)
    assert searcher.search([], 3)[1].shape == (0, 3)
    assert searcher.search([QUERY], 3, allowed=np.array([], np.int64))[1].shape == (1, 0)
    with pytest.raises(ValueError, match="k=0 is below 1"):
        searcher.search([QUERY], 0)


def test_a_vector_that_is_no_number(searcher: Searcher) -> None:
    with pytest.raises(UserError, match="the query's vector cannot be searched: row 0 of the queries is not finite"):
        searcher.search([QUERY], 1, vectors=Vectors(np.full((1, 32), np.nan, np.float32)))


def test_metadata_come_with_hits_and_filter_them(searcher: Searcher, small_collection: Collection) -> None:
    years = [2000 + row % 3 for row in range(12)]
    corpus: Dataset = small_collection.corpus.add_column("year", years).add_column("kind", ["a", "b"] * 6)
    documents = replace(small_collection, corpus=corpus)
    assert matching_rows(documents, {"year": 2001}).tolist() == [1, 4, 7, 10]
    assert matching_rows(documents, {"year": [2001, 2002], "kind": "a"}).tolist() == [2, 4, 8, 10]
    hits = replace(searcher, documents=documents)
    assert hits.hits(hits.search([QUERY], 1))[0][0].metadata.keys() == {"year", "kind"}
    with pytest.raises(UserError, match=r"no metadata column 'yaer'; did you mean 'year'.*they have year, kind"):
        matching_rows(documents, {"yaer": 1})
    with pytest.raises(UserError, match="year='new' does not fit the column's type, int64"):
        matching_rows(documents, {"year": "new"})
    with pytest.raises(UserError, match=r"year=10{99}… does not fit the column's type, int64"):
        matching_rows(documents, {"year": 10**400})
    tagged = replace(documents, corpus=corpus.add_column("tags", [["a", "b"]] * 12))
    with pytest.raises(UserError, match=r"tags cannot be filtered by: its type is list.*; name a column of single"):
        matching_rows(tagged, {"tags": "a"})


def test_rerank(tiny_encoder: Encoder, tiny_ranker: CrossEncoder, make_encoder: Callable[..., Encoder]) -> None:
    vectors = tiny_encoder.encode([QUERY], "query") @ tiny_encoder.encode(TEXTS, "document").T
    expected = sorted(range(12), key=lambda row: (-vectors[0, row], row))
    found = rerank(QUERY, TEXTS, tiny_encoder)
    assert [place for place, _ in found] == expected
    assert found[0][1] == pytest.approx(vectors.max(), abs=1e-6)
    scores = tiny_ranker.score([(QUERY, text) for text in TEXTS])
    assert rerank(QUERY, TEXTS, tiny_ranker, top=1) == [(int(scores.argmax()), pytest.approx(scores.max()))]
    assert rerank(QUERY, [], tiny_encoder) == []


def test_a_version_of_token_vectors_ranks_what_bm25_finds(
    versions: BundleVersions, make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = new_late_encoder(tokenizer)
    manifest = make(encoder=encoder, builder=TokenBuilder(candidates="bm25", shortlist=2))
    queries = ["the blood of the heart", "lungs and kidneys", "immune", "zebra"]
    exact_scores, exact_rows = ExactIndex(encoder.embed(TEXTS, "document")).search(encoder.embed(queries, "query"), 12)
    opened = embfit.load(f"{versions.folder}@2")
    searcher = opened.searcher
    assert searcher is not None
    assert searcher.words is not None
    for k in (1, 2, 5):  # the shortlist has two documents, or k
        _, listed = searcher.words.search(queries, max(k, 2))
        scores, rows = searcher.search(queries, k)
        for query in range(len(queries)):
            kept = [place for place, row in enumerate(exact_rows[query]) if row in listed[query]][:k]
            assert [row for row in rows[query] if row >= 0] == exact_rows[query, kept].tolist()
            np.testing.assert_allclose(scores[query, : len(kept)], exact_scores[query, kept], atol=2e-3)
    assert opened.search("zebra", 3) == []
    found = {hit.id for hit in opened.search(queries[0], 12, mode="hybrid")}
    assert found == {hit.id for hit in opened.search(queries[0], 12, mode="words")}
    allowed = np.arange(3, 12)
    _, listed = searcher.search(queries[:1], 2, "words", allowed)
    _, rows = searcher.search(queries[:1], 2, "dense", allowed)
    assert sorted(rows[0]) == sorted(listed[0])
    asked = list(manifest.model.probes)
    _, ours = searcher.search(asked, 10)
    _, theirs = ExactIndex(encoder.embed(TEXTS, "document")).search(encoder.embed(asked, "query"), 10)
    recall = np.mean([len({*one} & {*other}) / 10 for one, other in zip(ours, theirs, strict=True)])
    assert manifest.index.recall == pytest.approx(recall)
    assert 0 < recall < 1
    with pytest.raises(UserError, match=r"these documents have no BM25 index; make one with bundle\.words=true"):
        replace(searcher, words=None).search(queries, 1)
    with open_bundle(versions.folder, 1) as other:  # of a single vector: its shortlist is given from outside
        _, among = other.searcher.search(queries, 4, "hybrid")
    assert isinstance(searcher.index, TokenIndex)
    _, rows = searcher.index.search(encoder.embed(queries, "query"), 2, among=among)
    for query in range(len(queries)):
        assert rows[query].tolist() == [row for row in exact_rows[query].tolist() if row in among[query]][:2]
