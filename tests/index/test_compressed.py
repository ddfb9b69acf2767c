import numpy as np
import pytest

from embfit.index import CompressedIndex, ExactIndex
from embfit.index.compressed import FORMATS, Format, bytes_per_document
from embfit.vectors import Vectors

DOCUMENTS = Vectors(np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32))
QUERIES = Vectors(np.random.default_rng(1).normal(size=(7, 20)).astype(np.float32))


def test_whole_vectors_are_searched_exactly() -> None:
    scores, rows = CompressedIndex.build(DOCUMENTS, "float32").search(QUERIES, 9)
    expected_scores, expected_rows = ExactIndex(DOCUMENTS).search(QUERIES, 9)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


def test_binary_scores_count_signs() -> None:
    scores, rows = CompressedIndex.build(DOCUMENTS, "binary").search(QUERIES, 300)
    signs = np.where(QUERIES.rows > 0, 1, -1) @ np.where(DOCUMENTS.rows > 0, 1, -1).T
    for query in range(len(QUERIES)):
        order = np.lexsort((np.arange(300), -signs[query]))
        np.testing.assert_array_equal(rows[query], order)
        np.testing.assert_array_equal(scores[query], signs[query][order])


def test_int8_is_off_by_half_a_step_at_most() -> None:
    scores, rows = CompressedIndex.build(DOCUMENTS, "int8").search(QUERIES, 300)
    steps = (DOCUMENTS.rows.max(axis=0) - DOCUMENTS.rows.min(axis=0)) / 255
    bound = np.abs(QUERIES.rows) @ steps  # each dimension is off by less than a step
    exact = np.take_along_axis(QUERIES.rows @ DOCUMENTS.rows.T, rows, axis=1)
    assert (np.abs(scores - exact) <= bound[:, None]).all()
    assert np.abs(scores - exact).max() > 0


def test_bytes() -> None:
    assert [bytes_per_document(20, form) for form in ("float32", "int8", "binary")] == [80, 20, 3]


@pytest.mark.parametrize("form", FORMATS)
def test_chosen_documents_are_scored_as_a_search_scores_them(form: Format) -> None:
    index = CompressedIndex.build(DOCUMENTS, form)
    scores, rows = index.search(QUERIES, 300)
    some = np.concatenate([rows[:, 5:50:9], np.full((7, 1), -1)], axis=1)
    expected = np.concatenate([scores[:, 5:50:9], np.full((7, 1), -np.inf)], axis=1)
    np.testing.assert_allclose(index.score(QUERIES, some), expected, rtol=1e-5, atol=1e-5)


def test_a_depth_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="k=301 is not between 1 and the index's 300 documents"):
        CompressedIndex.build(DOCUMENTS, "int8").search(QUERIES, 301)


def test_several_vectors_a_document_are_refused() -> None:
    several = Vectors(DOCUMENTS.rows, np.arange(0, 301, 2))
    with pytest.raises(ValueError, match="one vector a document, and these have several; search them exactly"):
        CompressedIndex.build(several, "binary")


@pytest.mark.parametrize("form", FORMATS)
def test_vectors_that_cannot_be_compared_are_refused(form: Format) -> None:
    index = CompressedIndex.build(DOCUMENTS, form)
    broken = QUERIES.rows.copy()
    broken[2, 3] = np.nan
    with pytest.raises(ValueError, match="row 2 of the queries is not finite"):
        index.search(Vectors(broken), 5)
    with pytest.raises(ValueError, match="queries of 16 dimensions and documents of 20 differ in width"):
        index.search(QUERIES.cut(16), 5)
    lost = DOCUMENTS.rows.copy()
    lost[5, 0] = np.nan
    with pytest.raises(ValueError, match="row 5 of the documents is not finite"):
        CompressedIndex.build(Vectors(lost), form)
