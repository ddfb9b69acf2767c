from __future__ import annotations

import numpy as np

from embfit.evaluator.reranking import pairs_of, rerank
from embfit.records import Collection, Ranking

RANKING = Ranking({"q1": [("d3", 9.0), ("d0", 8.0), ("d5", 7.0)], "q0": [("d2", 1.0)], "q4": []})


def test_pairs_come_query_by_query(small_collection: Collection) -> None:
    assert pairs_of(RANKING, small_collection, 2).tolist() == [[1, 3], [1, 0], [0, 2]]
    assert pairs_of(Ranking({}), small_collection, 2).shape == (0, 2)


def test_the_first_are_put_in_order_and_the_others_follow(small_collection: Collection) -> None:
    asked: list[list[list[int]]] = []

    def score(pairs: np.ndarray) -> np.ndarray:
        asked.append(pairs.tolist())
        return np.array([-2.0, -1.0, 5.0], np.float32)

    found = rerank(RANKING, small_collection, 2, score)
    assert found.documents["q1"] == [("d0", -1.0), ("d3", -2.0), ("d5", -3.0)]
    assert found.documents["q0"] == [("d2", 5.0)]
    assert found.documents["q4"] == []
    assert len(asked) == 1  # all queries together
