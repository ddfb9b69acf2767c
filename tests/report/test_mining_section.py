"""The page of a mining: sources, filters, histograms, the estimate and examples, as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embfit.records import Report
from embfit.report.page import page

FACTS: Mapping[str, Any] = {
    "miner": "blend",
    "queries": 40,
    "candidates": 400,
    "by_source": {"dense": {"negatives": 90, "queries": 40}, "bm25": {"negatives": 30, "queries": 25}},
    "removed": {"dense.positive": 40, "dense.skip": 0, "bm25.relative_margin": 100},
    "scores": {"dense": {"edges": [0.0, 0.5, 1.0], "positives": [10, 30], "negatives": [80, 10]}},
    "false_negatives": {
        "queries": 8, "hidden": 10, "taken": 2, "mined": 32, "share_of_hidden": 0.2, "share_of_mined": 0.0625,
    },
    "examples": [
        {
            "query": {"id": "q1", "text": "is <b>bold</b>?"},
            "positives": [{"id": "d1", "text": "yes", "score": 0.75}],
            "negatives": [
                {"id": "d2", "text": "no", "score": 0.5, "rank": 3, "source": "dense"},
                {"id": "d3", "text": "perhaps", "score": None, "rank": None, "source": "random"},
            ],
        }
    ],
}  # fmt: skip


def read(facts: Mapping[str, Any]) -> str:
    drawn = page(Report("mine", [], [], mining=facts), {}, {})
    inside = drawn[drawn.index('<section id="mining">') :]
    words = re.sub(r"<svg.*?</svg>", "", inside[: inside.index("</section>")], flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", words).split())


def test_what_a_reader_sees() -> None:
    shown = read(FACTS)
    assert "dense: scores of 40 positives and 90 negatives" in shown
    assert "Negatives by source dense 90 75.0% bm25 30 25.0%" in shown
    assert "dense.positive 40 10.0% bm25.relative margin 100 25.0%" in shown
    assert "skip" not in shown
    assert "Of 10 positives hidden from a second mining, 2 (20%) became negatives." in shown
    assert "They are 6.2% of the negatives mined for these 8 queries" in shown
    assert "q1 is &lt;b&gt;bold&lt;/b&gt;? 2 negatives" in shown
    assert "0.750 d1 yes" in shown
    assert "0.500 d2 · dense, rank 3 no – d3 · random perhaps" in shown
    assert "No negatives were mined for 40 training queries." in shown


def test_counts_are_told_as_sentences_and_those_of_nothing_are_not() -> None:
    counts = {
        "miner": "dense", "wanted": 2, "queries": 725, "positives": 829, "mined": 1258, "candidates": 72_500,
        "short": 96, "without": 1, "unreached": 78, "dropped": 0, "judged": 0, "teacher_scores": 24,
    }  # fmt: skip
    assert read(counts) == (
        "Mining The dense miner found 1,258 negatives among 72,500 candidates for 725 training queries, which have 829 "
        "relevant documents, 2 wanted for each. 96 queries got fewer negatives than wanted. 1 query has no negative; "
        "it learns from the other documents of its batch alone. For 78 queries no positive was among the documents "
        "searched: their pairs may be wrong, or the search weak. teacher scores 24"
    )


def test_what_is_not_there_is_not_shown() -> None:
    assert read({"miner": "none", "queries": 3}) == "Mining No negatives were mined for 3 training queries."
    nothing = {"queries": 0, "hidden": 0, "taken": 0, "mined": 0, "share_of_hidden": None, "share_of_mined": None}
    assert "No training query has several positives" in read({"queries": 3, "false_negatives": nothing})
