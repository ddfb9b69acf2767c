"""Near-duplicates of a positive, and queries whose positive no source finds."""

from __future__ import annotations

import numpy as np
import pytest

from embfit.miner import BM25Miner, near_duplicates
from embfit.miner.near_duplicates import dissimilar
from embfit.model import Encoder
from embfit.ragged import Ragged
from embfit.store import Store
from tests.conftest import make_collection

DOCUMENTS = {
    "a": "one two three four five six seven",  # 4 sequences
    "b": "one two three four five six eight",  # shares 3 of then 5 with a: 0.6
    "c": "One two, three four: five!",  # 2 of 4: 0.5
    "d": "eight seven six five four three two one",  # the same words, no sequence
}
COLLECTION = make_collection(DOCUMENTS, {"q": "one two"}, {"train": {"q": {"a": 1}}})


@pytest.mark.parametrize(
    ("similarity", "passing"), [(0.7, [1, 1, 1]), (0.6, [0, 1, 1]), (0.5, [0, 0, 1]), (1.0, [1, 1, 1])]
)
def test_similarity_by_hand(similarity: float, passing: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "QUERIES", 2)  # several groups
    rows = np.tile([1, 2, 3], (3, 1))
    positives = Ragged(np.array([0, 3, 0]), np.array([0, 1, 2, 3]))
    passed = np.ones(rows.shape, bool)
    found = dissimilar(rows, passed, positives, COLLECTION, similarity)
    assert found[0].tolist() == found[2].tolist() == [bool(one) for one in passing]
    assert found[1].tolist() == [True, True, False]  # d itself


def test_one_of_several_positives_is_enough() -> None:
    for positives in ([0, 3], [3, 0]):
        found = dissimilar(np.array([[1, 2]]), np.ones((1, 2), bool), Ragged.of([positives]), COLLECTION, 0.6)
        assert found.tolist() == [[False, True]]  # b is like a, and neither is like d


def test_what_was_decided_is_not_read() -> None:
    passed = np.array([[True, False, False]])
    found = dissimilar(np.array([[3, 1, -1]]), passed, Ragged(np.array([0]), np.array([0, 1])), COLLECTION, 0.1)
    assert found.tolist() == [[True, True, True]]


def test_near_duplicates_are_counted(store: Store, tiny_encoder: Encoder) -> None:
    training_set = BM25Miner(negatives=3, depth=4, near_duplicate=0.6).mine(COLLECTION, tiny_encoder, store)
    assert training_set.rows["negatives"][:] == [[2, 3]]
    assert training_set.facts["removed"]["near_duplicate"] == 1


def test_queries_whose_positive_is_not_found_are_counted_and_dropped_on_demand(
    store: Store, tiny_encoder: Encoder
) -> None:
    documents = {"a": "red fox", "b": "red car", "c": "blue sky"}
    queries = {"q": "red fox", "r": "red sea"}
    collection = make_collection(documents, queries, {"train": {"q": {"a": 1}, "r": {"c": 1}}})
    kept = BM25Miner(negatives=1, depth=3).mine(collection, tiny_encoder, store)
    assert (kept.facts["unreached"], kept.facts["dropped"], kept.rows["query"][:]) == (1, 0, [0, 1])
    dropped = BM25Miner(negatives=1, depth=3, unreached="drop").mine(collection, tiny_encoder, store)
    assert (dropped.facts["unreached"], dropped.facts["dropped"], dropped.rows["query"][:]) == (1, 1, [0])
    assert dropped.relevant == kept.relevant
    assert dropped.rows["negatives"][:] == [[1]]


def test_a_copy_is_found_for_the_positive(store: Store, tiny_encoder: Encoder) -> None:
    documents = {"a": "red fox", "b": "red fox", "c": "blue sky"}
    collection = make_collection(documents, {"q": "red"}, {"train": {"q": {"b": 1}}})
    found = BM25Miner(negatives=1, depth=1).mine(collection, tiny_encoder, store)  # ranks a alone
    assert (found.facts["unreached"], found.rows["negatives"][:]) == (0, [[]])
