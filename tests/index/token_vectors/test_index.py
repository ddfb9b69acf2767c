"""A token index finds what MaxSim of its stored vectors finds, and equal documents are equal to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embfit.index import ExactIndex, TokenIndex, TokenIndexing, load_index
from embfit.index.token_vectors import TOKEN_FORMATS, TokenFormat, segment
from embfit.vectors import Vectors
from tests.index.token_vectors.conftest import joined, max_sim, several, texts

DOCUMENTS = several(300)
QUERIES = several(8, seed=1)
EVERYTHING = TokenIndexing(candidates="centroids", shortlist=300, probes=1000)


def naive(index: TokenIndex, queries: Vectors[np.ndarray], k: int) -> tuple[list[list[float]], list[list[int]]]:
    """Score every stored document with every query in double precision."""
    stored = index.vectors(index.rows)
    scores, rows = [], []
    for query in range(len(queries)):
        asked = queries.part(query, query + 1).rows
        pairs = zip(index.rows, range(len(stored)), strict=True)
        ranked = sorted((-max_sim(asked, stored.part(place, place + 1).rows), row) for row, place in pairs)[:k]
        scores.append([-score for score, _ in ranked])
        rows.append([int(row) for _, row in ranked])
    return scores, rows


@pytest.mark.parametrize("form", TOKEN_FORMATS)
@pytest.mark.parametrize("candidates", ["exact", "centroids"])
def test_found_are_the_documents_of_highest_max_sim(form: TokenFormat, candidates: str, tmp_path: Path) -> None:
    settings = TokenIndexing(format=form, candidates=candidates, shortlist=300, probes=1000)  # type: ignore[arg-type]
    index = TokenIndex.build(DOCUMENTS, tmp_path, settings)
    scores, rows = index.search(QUERIES, 10)
    wanted_scores, wanted_rows = naive(index, QUERIES, 10)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
    np.testing.assert_array_equal(index.score(QUERIES, rows), scores)


def test_candidates_of_bm25_come_from_the_caller(tmp_path: Path) -> None:
    settings = TokenIndexing(format="residual4", candidates="bm25", shortlist=20)
    index = TokenIndex.build(DOCUMENTS, tmp_path / "index", settings)
    assert not list((tmp_path / "index").rglob("postings*"))
    opened = TokenIndex.load(tmp_path / "index")
    assert opened.bm25_shortlist == 20
    assert opened.fingerprint == index.fingerprint
    among = np.random.default_rng(0).permuted(np.tile(np.arange(300), (len(QUERIES), 1)), axis=1)[:, :20]
    among[0, 5:] = -1
    among[1] = -1
    scores, rows = opened.search(QUERIES, 10, among=among)
    every_score, every_row = naive(index, QUERIES, 300)
    for query, chosen in enumerate(among):
        wanted = [
            (row, score) for score, row in zip(every_score[query], every_row[query], strict=True) if row in chosen
        ]
        found = int((rows[query] >= 0).sum())
        assert rows[query].tolist() == [row for row, _ in wanted[:10]] + [-1] * (10 - found)
        np.testing.assert_allclose(scores[query, :found], [score for _, score in wanted[:10]], atol=1e-6)
    assert (rows >= 0).sum(axis=1).tolist() == [5, 0, 10, 10, 10, 10, 10, 10]
    with pytest.raises(ValueError, match=r"takes candidates from a BM25 search \(candidates=bm25\); pass their rows"):
        opened.search(QUERIES, 10)
    fingerprints = {
        TokenIndex.build(DOCUMENTS.part(0, 30), tmp_path / name, TokenIndexing("float16", **chosen)).fingerprint  # type: ignore[arg-type]
        for name, chosen in {
            "exact": {"candidates": "exact"},
            "20": {"candidates": "bm25", "shortlist": 20},
            "21": {"candidates": "bm25", "shortlist": 21},
        }.items()
    }
    assert len(fingerprints) == 3


def test_half_precision_finds_what_whole_vectors_find(tmp_path: Path) -> None:
    scores, rows = TokenIndex.build(DOCUMENTS, tmp_path).search(QUERIES, 10)
    exact_scores, exact_rows = ExactIndex(DOCUMENTS).search(QUERIES, 10)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 39, 1999, 2001])
def test_any_number_of_documents_is_indexed(count: int, tmp_path: Path) -> None:
    documents = texts([3] * count)
    index = TokenIndex.build(documents, tmp_path)
    assert (len(index), index.manifest.form) == (count, "float16" if count < 2000 else "residual4")
    assert index.manifest.candidates == ("exact" if count < 2000 else "centroids")
    _, rows = index.search(documents.part(count - 1, count), 1)
    assert rows[0, 0] == count - 1


def test_no_documents_are_an_index_too(tmp_path: Path) -> None:
    index = TokenIndex.build(texts([]), tmp_path)
    assert (len(index), len(TokenIndex.load(tmp_path))) == (0, 0)
    with pytest.raises(ValueError, match="k=1 is not between 1 and the index's 0 documents"):
        index.search(QUERIES, 1)
    assert TokenIndex.load(tmp_path).add(DOCUMENTS).search(QUERIES, 3)[1].shape == (8, 3)


@pytest.mark.parametrize("settings", [TokenIndexing(), EVERYTHING])
def test_a_document_without_vectors_is_not_found(settings: TokenIndexing, tmp_path: Path) -> None:
    index = TokenIndex.build(texts([2, 0, 3]), tmp_path, settings)
    scores, rows = index.search(QUERIES, 3)
    assert (rows[:, 2] == -1).all()
    assert (scores[:, 2] == 0).all()
    assert (index.score(QUERIES.part(0, 1), np.array([[1, -1]])) == -np.inf).all()


@pytest.mark.parametrize("form", TOKEN_FORMATS)
@pytest.mark.parametrize("candidates", ["exact", "centroids"])
def test_equal_documents_have_equal_scores(form: TokenFormat, candidates: str, tmp_path: Path) -> None:
    documents = joined(DOCUMENTS, DOCUMENTS.take(np.arange(299, -1, -1)))
    settings = TokenIndexing(format=form, candidates=candidates, shortlist=600)  # type: ignore[arg-type]
    scores = TokenIndex.build(documents, tmp_path, settings).score(QUERIES, np.tile(np.arange(600), (8, 1)))
    np.testing.assert_array_equal(scores[:, :300], scores[:, :299:-1])


def test_a_query_gets_the_same_whatever_is_asked_beside_it(tmp_path: Path) -> None:
    for settings in (TokenIndexing(format="residual2", candidates="exact"), TokenIndexing(candidates="centroids")):
        index = TokenIndex.build(DOCUMENTS, tmp_path, settings)
        together = index.search(QUERIES, 20)
        for query in range(len(QUERIES)):
            for wanted, got in zip(together, index.search(QUERIES.part(query, query + 1), 20), strict=True):
                np.testing.assert_array_equal(wanted[query], got[0])


def test_documents_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TokenIndex.build(DOCUMENTS, tmp_path / "whole", EVERYTHING)
    monkeypatch.setattr(segment, "CHUNK", 50)
    parts = TokenIndex.build(DOCUMENTS, tmp_path / "parts", EVERYTHING)
    assert whole.fingerprint == parts.fingerprint


def test_a_short_list_of_the_best_estimates_holds_the_best_document(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, TokenIndexing(candidates="centroids", shortlist=30, probes=4))
    _, rows = index.search(DOCUMENTS.take([5, 77, 250]), 1)
    np.testing.assert_array_equal(rows[:, 0], [5, 77, 250])


def test_another_search_may_propose(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, EVERYTHING)
    among = np.array([[7, 9, 200, -1, 9], [3, -1, -1, -1, -1]])
    scores, rows = index.search(QUERIES.part(0, 2), 4, among=among)
    wanted = index.score(QUERIES.part(0, 2), among)
    best = sorted([(-wanted[0, 0], 7), (-wanted[0, 1], 9), (-wanted[0, 2], 200)])
    assert rows.tolist() == [[row for _, row in best] + [-1], [3, -1, -1, -1]]
    np.testing.assert_array_equal(scores[0], [-score for score, _ in best] + [0])
    with pytest.raises(ValueError, match="row 300 is beyond the index's last row 299"):
        index.search(QUERIES, 4, among=np.full((8, 1), 300))


def test_matches_are_the_vectors_that_make_the_score(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, TokenIndexing(format="ternary", candidates="exact"))
    query, rows = QUERIES.part(2, 3), np.array([17, 4, 17])
    found = index.matches(query, rows)
    for place, row in enumerate(rows):
        products = query.rows @ index.vectors(np.array([row])).rows.T  # [Vq, Vd]
        np.testing.assert_array_equal(found.positions[:, place], products.argmax(axis=1))
        np.testing.assert_allclose(found.similarities[:, place], products.max(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.scores, index.score(query, rows[None])[0])


def test_pooling_halves_the_vectors_and_keeps_the_documents(tmp_path: Path) -> None:
    documents = texts([8] * 100)
    index = TokenIndex.build(documents, tmp_path, TokenIndexing(pool_factor=2, protected=0))
    assert index.manifest.vectors == 400
    np.testing.assert_array_equal(index.search(documents, 1)[1][:, 0], np.arange(100))


def test_queries_must_fit(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path)
    with pytest.raises(ValueError, match="queries of 8 dimensions and documents of 16 differ in width"):
        index.search(QUERIES.cut(8), 1)
    broken = texts([2, 3])
    broken.rows[4, 0] = np.nan
    with pytest.raises(ValueError, match="row 1 of the queries is not finite"):
        index.search(broken, 1)
    assert [part.shape for part in index.search(texts([]), 2)] == [(0, 2), (0, 2)]


def test_a_query_without_vectors_scores_0(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path)
    scores, rows = index.search(texts([0, 2]), 3)
    assert (scores[0].tolist(), rows[0].tolist()) == ([0, 0, 0], [0, 1, 2])


def test_one_vector_a_query_is_enough(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, EVERYTHING)
    several_of_one = Vectors(QUERIES.rows, np.arange(len(QUERIES.rows) + 1))
    for wanted, got in zip(index.search(several_of_one, 5), index.search(Vectors(QUERIES.rows), 5), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_any_index_is_opened_by_its_folder(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, EVERYTHING, source="made")
    opened = load_index(tmp_path)
    assert isinstance(opened, TokenIndex)
    assert (opened.fingerprint, opened.settings) == (index.fingerprint, EVERYTHING)
    for wanted, got in zip(index.search(QUERIES, 5), opened.search(QUERIES, 5), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_fingerprints_tell_formats_searches_and_documents_apart(tmp_path: Path) -> None:
    settings = [
        TokenIndexing(),
        TokenIndexing(format="int8"),
        TokenIndexing(candidates="centroids"),
        TokenIndexing(candidates="centroids", probes=5),
        TokenIndexing(pool_factor=2),
    ]
    prints = [TokenIndex.build(DOCUMENTS, tmp_path, one, "made").fingerprint for one in settings]
    prints += [TokenIndex.build(DOCUMENTS, tmp_path, source="by another").fingerprint]
    prints += [TokenIndex.build(several(300, seed=2), tmp_path, source="made").fingerprint]
    assert len(set(prints)) == len(prints)
