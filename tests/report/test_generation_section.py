"""The section on generated queries, as a reader sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embfit.records import Report
from embfit.report.page import page

FACTS: Mapping[str, Any] = {
    "generator": "api (tiny)",
    "requests": 40,
    "answered": 38,
    "malformed": 2,
    "tokens": 12_345,
    "cost": None,
    "generated": 80,
    "kept": 60,
    "dropped": {"form": 4, "leak": 0, "round_trip": 16},
    "source_first": {"dense": 40, "bm25": 20},
    "styles": {"question": {"generated": 60, "kept": 45}, "claim": {"generated": 20, "kept": 15}},
    "examples": {
        "kept": [
            {
                "query": "is <b>this</b> it?",
                "style": "question",
                "document": {"id": "d1", "text": "yes"},
                "ranks": {"dense": 3, "bm25": None},
            }
        ]
    },
}


def seen(facts: Mapping[str, Any]) -> str:
    """Return the words of the section."""
    drawn = page(Report("generate", [], [], sections={"generation": facts}), {}, {})
    inside = drawn[drawn.index('<section id="generation">') :]
    return " ".join(re.sub(r"<[^>]+>", " ", inside[: inside.index("</section>")]).split())


def test_what_a_reader_sees() -> None:
    shown = seen(FACTS)
    assert "tokens 12,345" in shown
    assert "cost" not in shown
    assert "Kept 60 75.0% Too short, too long, or a refusal 4 5.0% Do not find their document 16 20.0%" in shown
    assert "question 45 75.0% claim 15 75.0%" in shown
    assert "the base model 40 50.0% BM25 20 25.0%" in shown
    assert "question is &lt;b&gt;this&lt;/b&gt; it? dense 3, bm25 –" in shown
    assert "d1 yes" in shown
    assert "These queries are synthetic" in shown


def test_the_writer_of_the_queries_that_evaluate_has_its_own_counts() -> None:
    other = {
        **FACTS, "generator": "local (small)", "tokens": 678, "generated": 10, "kept": 9, "dropped": {"copy": 1},
        "styles": {"claim": {"generated": 10, "kept": 9}},
    }  # fmt: skip
    shown = seen({**FACTS, "evaluation": other})
    trains, evaluates = shown.split("Queries that evaluate, written by local (small)")
    assert "Queries that train, written by api (tiny)" in trains
    assert "tokens 12,345" in trains
    assert "tokens 678" in evaluates
    assert "question 45 75.0% claim 15 75.0%" in trains
    assert "Kept 9 90.0% Copied from the document 1 10.0%" in evaluates
    assert "claim 9 90.0%" in evaluates
    assert "Queries that train" not in seen(FACTS)


def test_without_generation_there_is_no_section() -> None:
    assert 'id="generation"' not in page(Report("evaluate", [], []), {}, {})
