"""Approximate search finds nearly what an exact one finds, with the same scores, the same each time."""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
import pytest

from embfit.index import ApproximateIndex, ExactIndex, TokenIndex, approximate, open_index
from embfit.index.approximate import EXACT_UP_TO, Approximation, choose, search_key
from embfit.records import Embeddings
from embfit.store import Store
from embfit.vectors import Vectors

Both = tuple[Vectors, Vectors]


@pytest.fixture(scope="module")
def vectors() -> Both:
    """Four thousand unit vectors around forty centres, and queries near some of them."""
    random = np.random.default_rng(0)
    documents = random.standard_normal((40, 32))[random.integers(0, 40, 4000)] + random.standard_normal((4000, 32)) / 2
    documents = (documents / np.linalg.norm(documents, axis=1, keepdims=True)).astype(np.float32)
    queries = documents[::20] + random.standard_normal((200, 32)).astype(np.float32) / 20
    return Vectors(queries), Vectors(documents)


def made(documents: Vectors, fingerprint: str = "vectors") -> Embeddings:
    return Embeddings(documents, fingerprint)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_it_finds_nearly_all_with_exact_scores(vectors: Both, method: Literal["ivf", "hnsw"], store: Store) -> None:
    queries, documents = vectors
    expected_scores, expected = ExactIndex(documents).search(queries, 20)
    scores, rows = open_index(made(documents), method, store).search(queries, 20)
    found = [len(set(one) & set(other)) for one, other in zip(rows.tolist(), expected.tolist(), strict=True)]
    assert sum(found) >= 0.97 * 20 * len(queries)
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries.rows, documents.rows[rows]), atol=1e-6)
    np.testing.assert_allclose(scores[:, 0], expected_scores[:, 0], atol=1e-6)
    built = ApproximateIndex.build(documents, method).search(queries, 20)
    np.testing.assert_array_equal(built[1], rows)  # the same without a detour by the disk


def test_an_index_is_built_once_for_the_same_vectors(
    vectors: Both, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, documents = vectors
    first = open_index(made(documents), "ivf", store).search(queries, 20)
    again = open_index(made(documents), "ivf", store).search(queries, 20)
    np.testing.assert_array_equal(first[1], again[1])
    assert store.built == ["indexes"]
    open_index(made(documents, "others"), "ivf", store)
    open_index(made(documents), "hnsw", store)
    monkeypatch.setattr(approximate, "PROBED", 8)
    open_index(made(documents), "ivf", store)
    assert store.built == ["indexes"] * 4


def test_keys_hold_what_an_approximate_search_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_key("auto", 10) == {"search": "exact"}
    before = search_key("auto", EXACT_UP_TO + 1)
    assert (before["search"], before["faiss"]) == ("ivf", faiss.__version__)
    monkeypatch.setattr(approximate, "OVERSHOOT", 3)
    assert search_key("auto", EXACT_UP_TO + 1) != before


def test_places_without_a_document_are_marked(vectors: Both) -> None:
    queries, documents = vectors
    index = ApproximateIndex.build(documents.part(0, 300), "ivf")
    scores, rows = index.search(queries.part(0, 5), 300)
    for one, their in zip(rows.tolist(), scores.tolist(), strict=True):
        found = [row for row in one if row >= 0]
        assert len(set(found)) == len(found)
        assert one[len(found) :] == [-1] * (300 - len(found))
        assert their[len(found) :] == [0.0] * (300 - len(found))


def test_k_beyond_the_corpus(vectors: Both) -> None:
    index = ApproximateIndex.build(vectors[1].part(0, 100), "hnsw")
    with pytest.raises(ValueError, match="k=101 is not between 1 and the index's 100 documents"):
        index.search(vectors[0], 101)


@pytest.mark.parametrize("method", ["ivf", "hnsw", "int8", "bf16"])
def test_vectors_that_cannot_be_compared_are_refused(vectors: Both, method: Approximation) -> None:
    """Faiss takes NaN: it never proposes such a document, and proposes any for such a query."""
    queries, documents = vectors[0].part(0, 3), vectors[1].part(0, 200)
    index = ApproximateIndex.build(documents, method)
    broken = queries.rows.copy()
    broken[1, 5] = np.nan
    with pytest.raises(ValueError, match="row 1 of the queries is not finite"):
        index.search(Vectors(broken), 5)
    with pytest.raises(ValueError, match="queries of 16 dimensions and documents of 32 differ in width"):
        index.search(queries.cut(16), 5)
    lost = documents.rows.copy()
    lost[7, 0] = np.inf
    with pytest.raises(ValueError, match="row 7 of the documents is not finite"):
        ApproximateIndex.build(Vectors(lost), method)
    rows = np.where(np.arange(200) == 7, -1, np.arange(200))
    with pytest.raises(ValueError, match="row 7 of the documents is not finite"):
        index.updated(Vectors(lost), rows)


def test_auto_is_exact_where_that_is_quick(vectors: Both, store: Store) -> None:
    assert [choose("auto", count) for count in (10, EXACT_UP_TO, EXACT_UP_TO + 1)] == ["exact", "exact", "ivf"]
    assert choose("hnsw", 10) == "hnsw"
    queries, documents = vectors
    found = open_index(made(documents), "auto", store).search(queries, 7)
    for one, other in zip(found, ExactIndex(documents).search(queries, 7), strict=True):
        np.testing.assert_array_equal(one, other)
    assert store.built == []


def test_several_vectors_a_document_are_searched_exactly(
    vectors: Both, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "EXACT_UP_TO", 10)
    several = made(Vectors(vectors[1].rows, np.arange(0, 4001, 2)))
    assert isinstance(open_index(several, "auto", store), ExactIndex)
    with pytest.raises(ValueError, match="one vector a document, and these have several; search them exactly"):
        open_index(several, "ivf", store)


def test_token_vectors_are_indexed_once(store: Store) -> None:
    rows = np.random.default_rng(0).standard_normal((90, 8), np.float32)
    documents = Vectors(rows, np.arange(0, 91, 3))
    index = open_index(made(documents), "tokens", store)
    assert isinstance(index, TokenIndex)
    np.testing.assert_array_equal(index.search(documents, 1)[1], ExactIndex(documents).search(documents, 1)[1])
    assert open_index(made(documents), "tokens", store).fingerprint == index.fingerprint
    assert store.built == ["indexes"]
    with pytest.raises(ValueError, match="search=tokens is for several vectors a document, and these have one"):
        open_index(made(Vectors(rows)), "tokens", store)
