from dataclasses import replace

import pytest

from embfit.records import Comparison, Report
from embfit.report.verdict import verdict
from tests.report.reports import report, system

FOUND = Comparison("base", "tuned", "ndcg@10", "all", 4, 0.0912, (0.041, 0.131), 0.0012, 2, 1, 1)


def say(*comparisons: Comparison) -> list[str]:
    return verdict(report(comparisons=comparisons))


# One document at rank r gives 1 / log2(r + 1): base (1 + 1/2 + 1/2 + 0.6309) / 4, tuned (1 + 1 + 1 + 1/2) / 4.
VALUES = "nDCG@10 0.6577 → 0.8750"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {},
            f"tuned is better than base: {VALUES}, up by 0.091 "
            "(95 % interval +0.041 to +0.131, p = 0.0012, 4 queries).",
        ),
        (
            {"difference": -0.05, "ci95": (-0.09, -0.01), "p": 0.03},
            f"tuned is worse than base: {VALUES}, down by 0.050 (95 % interval −0.090 to −0.010, p = 0.03, 4 queries).",
        ),
        (
            {"difference": 0.01, "ci95": (-0.02, 0.04), "p": 0.05},
            f"No significant difference between base and tuned: {VALUES} "
            "(95 % interval −0.020 to +0.040, p = 0.05, 4 queries).",
        ),
        (
            {"ci95": None, "p": 0.12},
            f"No significant difference between base and tuned: {VALUES} "
            "(too few queries for an interval, p = 0.12, 4 queries).",
        ),
    ],
)
def test_the_difference_in_plain_words(change: dict[str, object], sentence: str) -> None:
    assert say(replace(FOUND, **change)) == [sentence]  # type: ignore[arg-type]


def test_that_nothing_was_learnt_is_said_first() -> None:
    first, second = verdict(report(comparisons=[FOUND], training={"best_step": 0}))
    assert first == (
        "No validation was better than the model before training, so what was saved is that model, unchanged: try more "
        "data, epochs or another training.lr."
    )
    assert second.startswith("tuned is better")


def test_a_gain_on_seen_documents_alone_is_called_that() -> None:
    unseen = replace(FOUND, subset="unseen", queries=2, difference=0.001, ci95=(-0.02, 0.03), p=0.9)
    assert say(FOUND, unseen)[1] == (
        "On the 2 queries unlike anything in the training split: +0.001 (−0.020 to +0.030), "
        "no significant difference. The gain is shown only for documents that training saw."
    )
    untrained = report(comparisons=[FOUND, unseen], training={})
    assert verdict(untrained)[1].endswith("no significant difference.")
    gained = replace(unseen, difference=0.08, ci95=(0.02, 0.12), p=0.001)
    assert say(FOUND, gained)[1] == (
        "On the 2 queries unlike anything in the training split: +0.080 (+0.020 to +0.120), better."
    )


def test_bm25_is_mentioned_when_it_leads() -> None:
    systems = [system("base", {"q1": 3}), system("tuned", {"q1": 2}), system("bm25", {"q1": 1})]
    leading = Report("finetune", systems, [FOUND])
    assert verdict(leading)[-1] == (
        "BM25 alone reaches 0.2500, more than tuned: search by words belongs in this system."
    )
    assert len(verdict(report(comparisons=[FOUND]))) == 1


def test_without_a_comparison_it_says_what_was_reached() -> None:
    alone = report(evaluations=[system("base", {"q1": 1, "q2": 1, "q3": 1, "q4": 1})], comparisons=[])
    assert verdict(alone) == ["base reaches nDCG@10 1.0000 on 4 queries of test."]
    assert verdict(Report("mine", [], [])) == []
