"""Pooling joins the vectors that are most alike, and keeps the number it says."""

from __future__ import annotations

import numpy as np
import pytest

from embfit.index.token_vectors.pooling import pool, pooled_counts
from embfit.vectors import Vectors
from tests.index.token_vectors.conftest import several


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def test_the_nearest_become_their_mean() -> None:
    """90 is protected; of the others 0 and 4, then 40 and 46, are the nearest."""
    document = Vectors(at(90, 0, 40, 4, 46), np.array([0, 5]))
    found = pool(document, 2, 1)
    np.testing.assert_allclose(found.rows, at(90, 2, 43), atol=1e-6)
    np.testing.assert_array_equal(found.starts, [0, 3])


@pytest.mark.parametrize(("factor", "protected"), [(1, 1), (2, 0), (2, 1), (3, 2), (100, 1)])
def test_counts_are_those_announced(factor: int, protected: int) -> None:
    documents = several(30)
    found = pool(documents, factor, protected)
    np.testing.assert_array_equal(found.counts, pooled_counts(documents.counts, factor, protected))
    np.testing.assert_allclose(np.linalg.norm(found.rows, axis=1), 1, atol=1e-6)


def test_counts_round_up() -> None:
    np.testing.assert_array_equal(pooled_counts(np.array([0, 1, 2, 3, 4, 7]), 3, 1), [0, 1, 2, 2, 2, 3])


def test_a_document_is_pooled_alike_whatever_stands_beside_it() -> None:
    documents = several(10)
    together = pool(documents, 2, 1)
    alone = [pool(documents.part(row, row + 1), 2, 1).rows for row in range(10)]
    np.testing.assert_array_equal(together.rows, np.concatenate(alone))


def test_equal_vectors_are_joined_first() -> None:
    found = pool(Vectors(at(0, 0, 0, 90), np.array([0, 4])), 2, 0)
    np.testing.assert_allclose(found.rows, at(0, 90), atol=1e-6)
