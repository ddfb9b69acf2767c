"""What a report advises: ship, do not ship yet, or judge so many more queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from embfit.evaluator.comparison import compare
from embfit.records import Evaluation, Ranking, Report
from embfit.report.decision import Decision, decide

TRAINED = {"kept_step": 4}


def system(name: str, values: Sequence[float], unseen: int = 0, split: str = "test") -> Evaluation:
    """A system with these values of nDCG@10, the last of which are of documents that training never saw."""
    queries = {f"q{place}": value for place, value in enumerate(values)}
    subsets = {"unseen": list(queries)[-unseen:]} if unseen else {}
    mean = sum(values) / len(values)
    return Evaluation(
        name, split, {"ndcg@10": mean}, {"ndcg@10": queries}, subsets, Ranking({}), {"queries": len(queries)}
    )


def decision(differences: Sequence[float], unseen: int = 0, **changes: object) -> Decision:
    base = system("base", [0.5] * len(differences), unseen)
    tuned = system("tuned", [0.5 + difference for difference in differences], unseen)
    found = decide(Report("finetune", [base, tuned], compare(base, tuned, 2_000, 0), **{"training": TRAINED} | changes))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_gain_beyond_chance_is_shipped() -> None:
    found = decision([0.2, 0.0] * 50)
    assert (found.action, found.headline) == ("ship", "Ship it.")
    assert found.reason == "tuned is better than base by 0.100 nDCG@10, beyond chance."
    assert decision([0.2, 0.0] * 50, unseen=40).reason.endswith("beyond chance, on new documents too.")


def test_a_gain_on_seen_documents_alone_is_shipped_for_those() -> None:
    # Unseen: 20 gain 0.06 and 20 lose 0.04, a mean of 0.01 and a deviation of 0.05064 (39 degrees of freedom);
    # (2.8016 * 0.05064 / 0.01)^2 = 201.3, so 202 queries, 162 more.
    found = decision([0.2] * 60 + [0.06, -0.04] * 20, unseen=40)
    assert (found.action, found.headline) == ("ship", "Ship it for today's documents.")
    assert "judge about 162 more queries about such documents" in found.reason


@pytest.mark.parametrize("unseen", [0, 40])
def test_what_is_worse_is_not_shipped(unseen: int) -> None:
    found = decision([-0.2, 0.0] * 50 if not unseen else [0.4] * 60 + [-0.2, -0.1] * 20, unseen)
    assert found.action == "wait"
    assert "worse" in found.reason


def test_what_may_be_chance_asks_for_as_many_queries_as_it_takes() -> None:
    # 50 gain 0.22 and 50 lose 0.18: a mean of 0.02, a deviation of 0.20101; (2.8016 * 0.20101 / 0.02)^2 = 792.8.
    found = decision([0.22, -0.18] * 50)
    assert (found.action, found.headline) == ("judge", "Judge about 693 more queries.")
    assert found.reason == (
        "tuned is ahead by +0.020, which may be chance on 100 queries; it takes about 793 to show a gain of 0.020."
    )
    # A mean of 0.001: 0.01 is the least that counts, and (2.8016 * 0.20101 / 0.01)^2 = 3171.3.
    assert decision([0.201, -0.199] * 50).headline == "Judge about 3,072 more queries."


def test_what_cannot_be_worth_it_is_not_shipped() -> None:
    found = decision([0.011, -0.009] * 50)  # a mean of 0.001, a deviation of 0.01: 8 queries would show a gain of 0.01
    assert (found.action, found.reason) == (
        "wait",
        "100 queries show a gain of 0.01 80% of the time, and show none beyond chance.",
    )
    assert decision([-0.2, 0.2, -0.01] * 30).reason == "tuned is not above base on 90 queries."


def test_a_base_that_leaves_nothing_to_gain_is_kept() -> None:
    base, tuned = system("base", [1.0] * 49 + [0.9]), system("tuned", [1.0] * 49 + [0.8])
    found = decide(Report("finetune", [base, tuned], compare(base, tuned, 2_000, 0), training=TRAINED))
    assert found == Decision(
        "wait",
        "Keep base.",
        "base reaches nDCG@10 0.9980 on 50 queries, so little is left to gain. Harder queries would show more.",
    )


def test_few_queries_decide_nothing() -> None:
    found = decision([0.2] * 12)
    assert (found.action, found.headline) == ("judge", "Judge 8 more queries.")
    assert decision([0.2]).headline == "Judge more queries."


def test_a_model_that_training_did_not_change_is_not_shipped() -> None:
    assert decision([0.0] * 30, training={"kept_step": 0}).action == "wait"


def test_users_queries_decide_where_they_were_measured() -> None:
    base, tuned = system("base", [0.5] * 60, split="users"), system("tuned", [0.4] * 60, split="users")
    worse = [vars(found) for found in compare(base, tuned, 2_000, 0)]
    found = decision([0.2] * 100, production=[base, tuned], sections={"production": {"comparisons": worse}})
    assert (found.action, found.reason) == ("wait", "On 60 queries, tuned is worse than base by more than chance.")


def test_where_nothing_was_trained_there_is_nothing_to_ship() -> None:
    base, tuned = system("base", [0.5] * 30), system("tuned", [0.6] * 30)
    report = Report("evaluate", [base, tuned], compare(base, tuned, 100, 0))
    assert decide(report) is None
    assert decide(replace(report, comparisons=[], training=TRAINED)) is None
