"""Hits of a part of the corpus are documents of the collection, or none."""

import numpy as np
import pytest

from embfit.errors import UserError
from embfit.evaluator.search import CorpusSearch
from embfit.index import ExactIndex
from embfit.index.protocol import NOTHING
from embfit.vectors import Vectors
from tests.conftest import make_collection

COLLECTION = make_collection({f"d{row}": f"text {row}" for row in range(6)}, {"q0": "text"}, {"dev": {"q0": {"d1": 1}}})
QUERY = Vectors(np.array([[1.0, 0.0]], np.float32))
SOME = np.array([1, 3, 5])  # rows of the documents searched; the second of them has no vector
PART = Vectors(np.array([[0.5, 0.0], [1.0, 0.0]], np.float32), np.array([0, 1, 1, 2]))


def test_a_place_that_no_document_takes_is_no_document() -> None:
    search = CorpusSearch(COLLECTION, depth=10)
    scores, rows = search.nearest(QUERY, ExactIndex(PART), SOME)
    assert rows.tolist() == [[5, 1, NOTHING]]
    assert scores.tolist() == [[1.0, 0.5, 0.0]]
    assert search.ranking([0], (scores, rows)).documents == {"q0": [("d5", 1.0), ("d1", 0.5)]}


def test_a_vector_that_is_not_finite_is_told() -> None:
    with pytest.raises(UserError, match="the model's vectors cannot be searched: row 0 of the queries is not finite"):
        CorpusSearch(COLLECTION, depth=2).nearest(Vectors(QUERY.rows * np.nan), ExactIndex(PART), SOME)
