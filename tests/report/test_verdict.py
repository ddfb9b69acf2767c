from dataclasses import replace
from typing import Any

import pytest

from embfit.generator import ExtractiveGenerator
from embfit.records import Comparison, Evaluation, Ranking, Report
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
    first, second = verdict(report(comparisons=[FOUND], training={"kept_step": 0}))
    assert first == (
        "Every validation was worse than the model before training, beyond chance, so what was saved is that model, "
        "unchanged: try more data or a lower training.lr."
    )
    assert second.startswith("tuned is better")


def test_the_p_that_decides_is_printed() -> None:
    corrected = [replace(FOUND, b=name, p=0.022, p_holm=0.11) for name in ("tuned", "bm25", "c", "d", "e")]
    assert say(*corrected, replace(FOUND, metric="mrr@10", b="f"))[0] == (
        f"No significant difference between base and tuned: {VALUES} "
        "(95 % interval +0.041 to +0.131, p = 0.11 corrected for 5 systems, 4 queries)."
    )


def test_a_gain_on_seen_documents_alone_is_called_that() -> None:
    unseen = replace(FOUND, subset="unseen", queries=2, difference=0.001, ci95=(-0.02, 0.03), p=0.9)
    seen = replace(FOUND, subset="seen", queries=2, difference=0.18, p=0.001)
    on_unseen = (
        "On the 2 queries about documents unlike any that training saw, tuned − base is +0.001 "
        "(−0.020 to +0.030, p = 0.9): no significant difference."
    )
    assert say(FOUND, unseen, seen)[1] == f"{on_unseen} The gain is shown only for documents that training saw."
    untold = f"{on_unseen} They are too few to tell whether the gain holds there."
    assert say(FOUND, unseen)[1] == untold
    assert say(FOUND, unseen, replace(seen, p=0.2))[1] == untold
    assert say(FOUND, unseen, replace(seen, difference=0.0005))[1] == untold
    untrained = report(comparisons=[FOUND, unseen, seen], training={})
    assert verdict(untrained)[1] == on_unseen
    gained = replace(unseen, difference=0.08, ci95=(0.02, 0.12), p=0.001)
    assert say(FOUND, gained)[1] == (
        "On the 2 queries about documents unlike any that training saw, tuned − base is +0.080 "
        "(+0.020 to +0.120, p = 0.001): better."
    )


def test_bm25_is_mentioned_when_it_leads_and_not_by_chance() -> None:
    systems = [system("base", {"q1": 3}), system("tuned", {"q1": 2}), system("bm25", {"q1": 1})]
    behind = replace(FOUND, a="bm25", difference=-0.0923, p=0.003)
    assert verdict(Report("finetune", systems, [FOUND, behind]))[-1] == (
        "BM25 alone reaches 0.2500, more than tuned (p = 0.003): combine the model with BM25."
    )
    assert verdict(Report("finetune", systems, [FOUND, behind], data={"synthetic_splits": {"test": "extractive"}}))[
        -1
    ] == (
        "BM25 alone reaches 0.2500, more than tuned (p = 0.003): extractive takes its queries from the documents' own "
        "words, so this says nothing about users' queries."
    )
    assert ExtractiveGenerator().name == "extractive"
    assert len(verdict(Report("finetune", systems, [FOUND, replace(behind, p=0.06)]))) == 1
    assert len(verdict(Report("finetune", systems, [FOUND]))) == 1  # of the four queries' values one differs: p = 1
    assert len(verdict(report(comparisons=[FOUND]))) == 1


def test_bm25_is_tested_against_the_better_system_where_the_report_does_not() -> None:
    queries = [f"q{place}" for place in range(40)]

    def flat(name: str, value: float) -> Evaluation:
        values = {"ndcg@10": dict.fromkeys(queries, value)}
        return Evaluation(name, "test", {"ndcg@10": value}, values, {}, Ranking({}), {"queries": 40})

    systems = [flat("base", 0.5), flat("tuned", 0.4), flat("bm25", 0.45)]
    worse = replace(FOUND, difference=-0.1)
    assert len(verdict(Report("evaluate", systems, [worse]))) == 1  # more than tuned, but not than base
    systems[2] = flat("bm25", 0.6)
    assert verdict(Report("evaluate", systems, [worse]))[-1] == (
        "BM25 alone reaches 0.6000, more than base (p = 0.0001): combine the model with BM25."
    )


def test_what_both_models_reach_with_bm25_is_said() -> None:
    queries = [f"q{place}" for place in range(40)]

    def flat(name: str, value: float, *of: str) -> Evaluation:
        values = {"ndcg@10": dict.fromkeys(queries, value)}
        return Evaluation(name, "test", {"ndcg@10": value}, values, {}, Ranking({}), {"queries": 40, "of": list(of)})

    def said(before: float, after: float, **data: Any) -> str:
        fused = [flat("hybrid", before, "base", "bm25"), flat("tuned_hybrid", after, "tuned", "bm25")]
        systems = [flat("base", 0.5), flat("tuned", 0.6), *fused]
        return verdict(Report("finetune", systems, [FOUND], data=data))[-1]

    assert said(0.58, 0.6) == "Fused with BM25, nDCG@10: base 0.5800, tuned 0.6000."
    assert said(0.58, 0.7) == (
        "Fused with BM25, nDCG@10: base 0.5800, tuned 0.7000. That is above tuned alone, beyond chance: serve vectors "
        "and words together."
    )
    assert "Even base with BM25 is above tuned alone, beyond chance" in said(0.65, 0.55)
    copied = said(0.58, 0.7, synthetic_splits={"test": "extractive"})
    assert copied == "Fused with BM25, nDCG@10: base 0.5800, tuned 0.7000."
    assert said(0.58, 0.7, synthetic_splits={"test": "local (x)"}).endswith("serve vectors and words together.")


def test_without_a_comparison_it_says_what_was_reached() -> None:
    alone = report(evaluations=[system("base", {"q1": 1, "q2": 1, "q3": 1, "q4": 1})], comparisons=[])
    assert verdict(alone) == ["base reaches nDCG@10 1.0000 on 4 queries of test."]
    assert verdict(Report("mine", [], [])) == []
