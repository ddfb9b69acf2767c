import pytest

from embfit.evaluator.unjudged import condensed, condensed_metrics, count_unjudged
from embfit.records import Ranking

QRELS = {"q": {"a": 2, "b": 0, "c": 1}, "r": {"a": 1}, "none": {"a": 0}}
RANKING = Ranking(
    {"q": [("x", 3.0), ("a", 2.0), ("y", 1.5), ("b", 1.0)], "r": [(f"n{i:02}", -float(i)) for i in range(12)]}
)


def test_unjudged_documents_in_the_first_ten_are_counted() -> None:
    assert count_unjudged(RANKING, QRELS) == {"q": 2, "r": 10}
    assert count_unjudged(Ranking({}), QRELS) == {"q": 0, "r": 0}


def test_condensed_lists_leave_them_out() -> None:
    assert condensed(RANKING, QRELS).documents == {"q": [("a", 2.0), ("b", 1.0)], "r": []}
    # q: a first instead of second, and c is not found; r finds nothing.
    assert condensed_metrics(RANKING, QRELS, ["mrr@10", "recall@10"]) == pytest.approx(
        {"mrr@10": 1 / 2, "recall@10": 1 / 4}
    )
