"""The funnel: a shortlist by the first dimensions, ranked by the whole vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embfit.evaluator.funnel import measure_funnel
from embfit.evaluator.judging import FunnelSettings
from embfit.index import ExactIndex, FunnelBuilder, FunnelIndex, IndexInput, load_index
from embfit.index.compressed import FORMATS, Format
from embfit.records import Embeddings
from embfit.vectors import Vectors, unit_length

RANDOM = np.random.default_rng(0)
DOCUMENTS = Vectors(unit_length(RANDOM.normal(size=(300, 24)).astype(np.float32)))
QUERIES = Vectors(unit_length(RANDOM.normal(size=(7, 24)).astype(np.float32)))


@pytest.mark.parametrize("form", FORMATS)
def test_the_best_of_the_shortlist_are_ranked_by_whole_vectors(form: Format) -> None:
    scores, rows = FunnelIndex.build(DOCUMENTS, 8, form, 30).search(QUERIES, 5)
    whole = QUERIES.rows @ DOCUMENTS.rows.T
    small_queries, small = (unit_length(vectors.rows[:, :8]) for vectors in (QUERIES, DOCUMENTS))
    if form == "binary":
        small_queries, small = np.where(small_queries > 0, 1.0, -1.0), np.where(small > 0, 1.0, -1.0)
    first = small_queries @ small.T
    for query in range(len(QUERIES)):
        last = np.sort(first[query])[-30]
        if form == "float32":
            shortlist = np.argsort(-first[query])[:30]
            np.testing.assert_array_equal(rows[query], shortlist[np.argsort(-whole[query, shortlist])][:5])
        assert (first[query, rows[query]] >= last - 0.02).all()  # int8 rounds
        np.testing.assert_allclose(scores[query], whole[query, rows[query]], rtol=1e-5)
        assert (np.diff(scores[query]) <= 0).all()


def test_a_shortlist_of_all_documents_finds_what_an_exact_search_finds() -> None:
    exact = ExactIndex(DOCUMENTS).search(QUERIES, 20)
    for shortlist in (300, 900):
        found = FunnelIndex.build(DOCUMENTS, 2, "int8", shortlist).search(QUERIES, 20)
        np.testing.assert_array_equal(found[0], exact[0])
        np.testing.assert_array_equal(found[1], exact[1])
    every = FunnelIndex.build(DOCUMENTS, 2, "binary", 10).search(QUERIES, 300)  # more than the shortlist
    np.testing.assert_array_equal(every[1], ExactIndex(DOCUMENTS).search(QUERIES, 300)[1])


def test_it_is_the_search_that_the_evaluator_measures(tmp_path: Path) -> None:
    found: list[np.ndarray] = []

    def value(hits: tuple[np.ndarray, np.ndarray]) -> float:
        found.append(hits[1])
        return 1.0

    measured = measure_funnel(QUERIES, DOCUMENTS, [8], FunnelSettings([25], ["int8"], 0.9), 10, "ndcg@10", value)
    place = next(i for i, one in enumerate(measured.settings) if (one.dims, one.shortlist) == (8, 25))
    FunnelBuilder(8, "int8", 25).write(IndexInput(Embeddings(DOCUMENTS, "made")), tmp_path)
    np.testing.assert_array_equal(load_index(tmp_path).search(QUERIES, 10)[1], found[place])


def test_what_it_cannot_hold_is_refused() -> None:
    FunnelBuilder(24).check(24, True, "docs")
    with pytest.raises(ValueError, match=r"index\.dims=32 exceeds the vectors' 24 dimensions; lower it"):
        FunnelBuilder(32).check(24, True, "docs")
    several = Vectors(DOCUMENTS.rows, np.arange(0, 301, 2))
    with pytest.raises(ValueError, match="holds one vector a document, and these have several"):
        FunnelIndex.build(several, 8, "float32", 10)
    with pytest.raises(ValueError, match="queries of 8 dimensions and documents of 24 differ in width"):
        FunnelIndex.build(DOCUMENTS, 8, "float32", 10).search(QUERIES.cut(8), 5)
