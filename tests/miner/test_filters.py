"""Filters by hand."""

from __future__ import annotations

import numpy as np

from embfit.miner import filters
from embfit.ragged import Ragged


def ragged(*lists: list[float], dtype: type = np.float32) -> Ragged:
    return Ragged(np.array([value for one in lists for value in one], dtype), np.cumsum([0, *map(len, lists)]))


def test_known_documents_and_their_copies_do_not_pass() -> None:
    copies = np.array([0, 1, 0, 3, 4])  # document 2 has the text of 0
    rows = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [4, 3, 2, 1]])
    known = ragged([2], [], [4, 1], dtype=np.int32)
    assert filters.unknown(rows, known, copies).tolist() == [
        [False, True, False, True],
        [True, True, True, True],
        [False, True, True, False],
    ]
    assert filters.unknown(rows, ragged([], [], [], dtype=np.int32), copies).all()


def test_the_first_candidate_of_a_text_passes() -> None:
    copies = np.array([0, 1, 0, 1, 4, 0])  # 2 and 5 have the text of 0, 3 that of 1
    rows = np.array([[2, 1, 0, 4, 3], [-1, 4, 5, 0, 3]])  # -1 is an empty place, not document 5
    assert filters.first_of_text(rows, copies).tolist() == [
        [True, True, False, True, False],
        [True, True, True, False, True],
    ]
    assert filters.first_of_text(rows[:, :0], copies).shape == (2, 0)


def test_margins_are_taken_from_the_lowest_positive_and_lower_a_negative_score() -> None:
    scores = ragged([0.8, 0.6], [-0.2], [0.0, 0.5])
    np.testing.assert_allclose(filters.relative_ceilings(scores, 0.05), [0.57, -0.21, 0.0], atol=1e-7)
    np.testing.assert_allclose(filters.absolute_ceilings(scores, 0.1), [0.5, -0.3, -0.1], atol=1e-7)


def test_a_score_at_the_ceiling_passes() -> None:
    scores = np.array([[0.75, 0.5, 0.25], [0.75, 0.5, 0.25]], np.float32)
    assert filters.below(scores, np.array([0.5, 0.25], np.float32)).tolist() == [
        [False, True, True],
        [False, False, True],
    ]
    assert filters.below(scores, 0.5).tolist() == [[False, True, True]] * 2
