import numpy as np
import pytest

from embfit.index.compressed import CompressedIndex, Cut, bytes_per_document, rescore
from embfit.index.exact import search

DOCUMENTS = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(7, 20)).astype(np.float32)


def test_whole_vectors_are_searched_exactly() -> None:
    scores, rows = CompressedIndex(DOCUMENTS, "float32").search(QUERIES, 9)
    expected_scores, expected_rows = search(QUERIES, DOCUMENTS, 9)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


def test_binary_scores_count_signs() -> None:
    scores, rows = CompressedIndex(DOCUMENTS, "binary").search(QUERIES, 300)
    signs = np.where(QUERIES > 0, 1, -1) @ np.where(DOCUMENTS > 0, 1, -1).T
    for query in range(len(QUERIES)):
        order = np.lexsort((np.arange(300), -signs[query]))
        np.testing.assert_array_equal(rows[query], order)
        np.testing.assert_array_equal(scores[query], signs[query][order])


def test_int8_is_off_by_half_a_step_at_most() -> None:
    scores, rows = CompressedIndex(DOCUMENTS, "int8").search(QUERIES, 300)
    steps = (DOCUMENTS.max(axis=0) - DOCUMENTS.min(axis=0)) / 255
    bound = np.abs(QUERIES) @ steps  # each dimension is off by less than a step
    exact = np.take_along_axis(QUERIES @ DOCUMENTS.T, rows, axis=1)
    assert (np.abs(scores - exact) <= bound[:, None]).all()
    assert np.abs(scores - exact).max() > 0


def test_bytes() -> None:
    assert [bytes_per_document(20, form) for form in ("float32", "int8", "binary")] == [80, 20, 3]


def test_cut_vectors_are_renormalised_as_they_are_read() -> None:
    cut = Cut(DOCUMENTS, 5)
    expected = DOCUMENTS[:, :5] / np.linalg.norm(DOCUMENTS[:, :5], axis=1, keepdims=True)
    assert (len(cut), cut.shape) == (300, (300, 5))
    np.testing.assert_allclose(cut[10:20], expected[10:20], rtol=1e-6)
    np.testing.assert_allclose(cut[3], expected[3], rtol=1e-6)
    assert Cut(DOCUMENTS, 20)[:] is not None
    np.testing.assert_array_equal(Cut(DOCUMENTS, 20)[:], DOCUMENTS)
    np.testing.assert_array_equal(Cut(np.zeros((2, 4), np.float32), 2)[:], np.zeros((2, 2)))
    np.testing.assert_array_equal(search(cut[:3], cut, 4)[1], search(expected[:3], expected, 4)[1])


def test_a_shortlist_is_ranked_by_whole_vectors() -> None:
    shortlist = np.array([[5, 200, 7], [0, 1, 2]])
    scores, rows = rescore(QUERIES[:2], DOCUMENTS, shortlist, 2)
    for query in range(2):
        products = {row: float(DOCUMENTS[row] @ QUERIES[query]) for row in shortlist[query]}
        best = sorted(products, key=lambda row: -products[row])[:2]
        assert rows[query].tolist() == best
        assert scores[query].tolist() == pytest.approx([products[row] for row in best], rel=1e-5)


def test_a_depth_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="k=301 is not between 1 and the index's 300 documents"):
        CompressedIndex(DOCUMENTS, "int8").search(QUERIES, 301)
