from math import log2

import pytest

from embfit.errors import ConfigError
from embfit.evaluator.metrics import Metric, answerable, per_query
from embfit.records import Ranking


def ranking(**documents: str) -> Ranking:
    """`ranking(q="cab")` ranks c, a and b for q."""
    return Ranking.of(
        {query: [(name, -place) for place, name in enumerate(names)] for query, names in documents.items()}
    )


def value(metric: str, order: str, grades: dict[str, int]) -> float:
    return per_query(ranking(q=order), {"q": grades}, [metric])[metric]["q"]


@pytest.mark.parametrize(
    ("metric", "order", "grades", "expected"),
    [
        # One relevant document at rank r: 1 / log2(r + 1), which is a plain fraction at ranks 1, 3 and 7.
        ("ndcg@10", "xabcdef", {"x": 1}, 1),
        ("ndcg@10", "abxcdef", {"x": 1}, 1 / 2),
        ("ndcg@10", "abcdefx", {"x": 1}, 1 / 3),
        ("ndcg@6", "abcdefx", {"x": 1}, 0),
        # Grades are gains, linearly: grade 2 at rank 3 and grade 1 at rank 1, against the best order.
        ("ndcg@10", "bxa", {"a": 2, "b": 1, "x": 0}, (1 / 1 + 2 / 2) / (2 / 1 + 1 / log2(3))),
        # The best order is of all judged documents, retrieved or not.
        ("ndcg@10", "b", {"a": 2, "b": 1}, 1 / (2 + 1 / log2(3))),
        # ... but of no more than k of them.
        ("ndcg@1", "bac", {"a": 1, "b": 1, "c": 1}, 1),
        # A grade below zero is no gain.
        ("ndcg@10", "abx", {"x": 1, "a": -1}, 1 / 2),
        ("mrr@10", "abx", {"x": 1}, 1 / 3),
        ("mrr@3", "abx", {"x": 1}, 1 / 3),
        ("mrr@2", "abx", {"x": 1}, 0),
        ("mrr@10", "ayx", {"x": 1, "y": 1}, 1 / 2),
        ("mrr@10", "ax", {"a": 0, "x": 2}, 1 / 2),
        ("recall@2", "axby", {"x": 1, "y": 1, "z": 1}, 1 / 3),
        ("recall@4", "axby", {"x": 1, "y": 1, "z": 1}, 2 / 3),
        ("recall@100", "axby", {"x": 1, "y": 3, "a": 0}, 1),
        ("precision@4", "axby", {"x": 1, "y": 1}, 1 / 2),
        # A short list is as if filled up with documents that are not relevant.
        ("precision@10", "axby", {"x": 1, "y": 1}, 2 / 10),
        # Precision at ranks 2 and 4, over three relevant documents.
        ("map@10", "axby", {"x": 1, "y": 1, "z": 1}, (1 / 2 + 2 / 4) / 3),
        ("map@3", "axby", {"x": 1, "y": 1, "z": 1}, (1 / 2) / 3),
        ("success@2", "axby", {"x": 1, "y": 1, "z": 1}, 1),
        ("success@1", "axby", {"x": 1, "y": 1, "z": 1}, 0),
        ("success@10", "ab", {"a": 0, "z": 2}, 0),
    ],
)
def test_hand_worked(metric: str, order: str, grades: dict[str, int], expected: float) -> None:
    assert value(metric, order, grades) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("cutoff", range(1, 60))
def test_reciprocal_rank_stops_exactly_at_its_cutoff(cutoff: int) -> None:
    documents = [f"d{place:03}" for place in range(60)]
    measured = Ranking.of({"q": [(name, -place) for place, name in enumerate(documents)]})
    at_cutoff = per_query(measured, {"q": {documents[cutoff - 1]: 1}}, [f"mrr@{cutoff}"])[f"mrr@{cutoff}"]["q"]
    beyond = per_query(measured, {"q": {documents[cutoff]: 1}}, [f"mrr@{cutoff}"])[f"mrr@{cutoff}"]["q"]
    assert (at_cutoff, beyond) == (1 / cutoff, 0.0)


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]])
def test_ties_are_broken_by_id_whatever_the_order_of_arrival(order: list[str]) -> None:
    scores = {"a": 0.5, "b": 0.5, "c": 0.9}
    tied = Ranking.of({"q": [(name, scores[name]) for name in order]})
    assert [name for name, _ in tied.documents["q"]] == ["c", "a", "b"]
    measured = per_query(tied, {"q": {"b": 1}}, ["mrr@10", "ndcg@10", "recall@2"])
    assert measured == {"mrr@10": {"q": 1 / 3}, "ndcg@10": {"q": 1 / 2}, "recall@2": {"q": 0.0}}


def test_scores_that_float32_cannot_tell_apart_stay_in_order() -> None:
    close = Ranking.of({"q": [("b", 1.0), ("a", 1.0 + 1e-12), ("c", 1.0 + 2e-12)]})
    assert per_query(close, {"q": {"a": 1}}, ["mrr@10"])["mrr@10"]["q"] == 1 / 2


def test_the_query_itself_is_left_out_before_the_cut() -> None:
    scored = {"a": [("a", 3.0), ("b", 2.0), ("c", 1.0)], "d": [("a", 1.0)]}
    assert Ranking.of(scored, 1, exclude_self=True).documents == {"a": [("b", 2.0)], "d": [("a", 1.0)]}


def test_depth_cuts_after_ties_are_broken() -> None:
    assert Ranking.of({"q": [("b", 1.0), ("c", 1.0), ("a", 1.0)]}, depth=2).documents == {"q": [("a", 1.0), ("b", 1.0)]}


def test_a_query_that_the_ranking_lacks_counts_as_zero() -> None:
    measured = per_query(ranking(q1="x", q3=""), {"q1": {"x": 1}, "q2": {"x": 1}, "q3": {"x": 1}}, ["ndcg@10", "map@5"])
    expected = {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert measured == {"ndcg@10": expected, "map@5": expected}


def test_queries_without_a_relevant_document_are_left_out() -> None:
    qrels = {"q1": {"x": 1}, "q2": {"x": 0}, "q3": {}, "q4": {"y": 2, "z": 0}}
    assert list(answerable(qrels)) == ["q1", "q4"]
    assert list(per_query(ranking(q1="x", q2="x"), qrels, ["recall@1"])["recall@1"]) == ["q1", "q4"]


def test_queries_that_nobody_judged_are_not_measured() -> None:
    assert list(per_query(ranking(q1="x", other="x"), {"q1": {"x": 1}}, ["mrr@1"])["mrr@1"]) == ["q1"]


@pytest.mark.parametrize("text", ["ndcg", "ndcg@0", "ndcg@-1", "NDCG@10", "hits@10", "ndcg@ten", "ndcg@10 "])
def test_what_is_no_metric_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a metric; choose ndcg@K, mrr@K, recall@K"):
        Metric.parse(text)
