import numpy as np
import pytest

from embfit.compose.value_origins import Origins
from embfit.evaluator.judging import judge
from embfit.records import Ranking
from embfit.report.sections.scores import read_scores, section
from embfit.report.subject import Subject
from tests.report.reports import BASE, METRICS, collection, report, system

QRELS = collection().qrels["test"]


def test_relevant_documents_are_parted_from_the_best_others() -> None:
    # In BASE the relevant documents are at ranks 1, 3, 3 and 2, and rank r scores 1.1 - 0.1 r.
    scores = read_scores(system("base", BASE), QRELS)
    assert sorted(scores.relevant) == pytest.approx([0.8, 0.8, 0.9, 1.0])
    assert sorted(scores.others) == pytest.approx([0.9, 1.0, 1.0, 1.0])
    assert (scores.lost, scores.first) == (0, 0.25)


def test_what_the_ranking_lacks_is_counted() -> None:
    found = judge("short", collection(), "test", Ranking.of({"q1": [("d1", 0.5)], "q2": [("d5", 0.4)]}), METRICS)
    scores = read_scores(found, QRELS)
    assert (scores.relevant.tolist(), scores.others.tolist()) == ([0.5], [0.4])
    assert (scores.lost, scores.first) == (3, 0.25)


def test_the_main_pair_is_drawn() -> None:
    shown = section(Subject(report(), {}, Origins(), collection()))
    assert shown is not None
    assert [plot.caption for plot in shown["plots"]] == [
        "base: 25% of queries have a relevant document first",
        "tuned: 75% of queries have a relevant document first",
    ]


def test_equal_scores_are_drawn_too() -> None:
    flat = judge(
        "flat", collection(), "test", Ranking.of({f"q{n}": [("d1", 0.0), ("d2", 0.0)] for n in (1, 2)}), METRICS
    )
    assert np.ptp(read_scores(flat, QRELS).relevant) == 0
    shown = section(Subject(report(evaluations=[flat], comparisons=[]), {}, Origins(), collection()))
    assert shown is not None
    assert "var(--gain)" in shown["plots"][0].svg
