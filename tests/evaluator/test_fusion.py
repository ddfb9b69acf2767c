import pytest

from embfit.evaluator.fusion import reciprocal_ranks, weighted_scores
from embfit.records import Ranking

DENSE = Ranking({"q": [("a", 0.9), ("b", 0.8), ("c", 0.4)], "r": [("a", 0.5)]})
WORDS = Ranking({"q": [("c", 12.0), ("d", 6.0), ("b", 2.0)], "r": []})


def test_reciprocal_ranks_are_added_up() -> None:
    found = reciprocal_ranks([DENSE, WORDS], [1, 1], k=60, depth=10).documents
    assert found["q"] == [
        ("c", pytest.approx(1 / 63 + 1 / 61)),
        ("b", pytest.approx(1 / 62 + 1 / 63)),
        ("a", pytest.approx(1 / 61)),
        ("d", pytest.approx(1 / 62)),
    ]
    assert found["r"] == [("a", pytest.approx(1 / 61))]
    halved = reciprocal_ranks([DENSE, WORDS], [1, 0], k=60, depth=2).documents
    assert [document for document, _ in halved["q"]] == ["a", "b"]


def test_weighted_scores_are_brought_to_one_scale_first() -> None:
    found = weighted_scores([DENSE, WORDS], [0.5, 0.5], depth=10).documents
    # dense: a 1, b 0.8, c 0; words: c 1, d 0.4, b 0
    assert found["q"] == [
        ("a", pytest.approx(0.5)),
        ("c", pytest.approx(0.5)),
        ("b", pytest.approx(0.4)),
        ("d", pytest.approx(0.2)),
    ]
    assert found["r"] == [("a", 0.5)]  # one score is the highest


def test_ties_of_a_fusion_are_broken_by_id() -> None:
    found = reciprocal_ranks([Ranking({"q": [("b", 1.0)]}), Ranking({"q": [("a", 1.0)]})], [1, 1], k=1, depth=5)
    assert found.documents["q"] == [("a", 0.5), ("b", 0.5)]
