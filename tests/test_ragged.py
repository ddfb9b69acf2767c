from __future__ import annotations

import numpy as np

from embfit.ragged import Ragged

LISTS = Ragged.of([[1, 2], [], [3]])


def test_of() -> None:
    assert LISTS.values.tolist() == [1, 2, 3]
    assert LISTS.offsets.tolist() == [0, 2, 2, 3]
    assert len(Ragged.of([])) == 0


def test_from_owners() -> None:
    made = Ragged.from_owners(np.array([7, 8, 9]), np.array([0, 2, 2]), 4)
    assert [values.tolist() for values in made.lists()] == [[7], [], [8, 9], []]


def test_owners_and_lengths() -> None:
    assert LISTS.owners.tolist() == [0, 0, 2]
    assert LISTS.lengths.tolist() == [2, 0, 1]


def test_part() -> None:
    assert [values.tolist() for values in LISTS.part(1, 3).lists()] == [[], [3]]


def test_no_lists() -> None:
    assert Ragged.of([]).lists() == []
    assert LISTS.take(np.array([], np.int64)).lists() == []


def test_take() -> None:
    taken = LISTS.take(np.array([2, 1, 0, 0]))
    assert [values.tolist() for values in taken.lists()] == [[3], [], [1, 2], [1, 2]]


def test_draws_are_even_and_keep_their_owner() -> None:
    lists = Ragged.of([[1, 2, 3], [], [4], [5, 6]])
    random = np.random.default_rng(0)
    drawn = [lists.sample(2, random) for _ in range(600)]
    assert all(one.lengths.tolist() == [2, 0, 1, 2] for one in drawn)
    counts = np.bincount(np.concatenate([one.part(0, 1).values for one in drawn]))
    assert counts[1:].min() > 340  # 400 each on average
