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


def test_what_a_reader_sees() -> None:
    drawn = page(Report("generate", [], [], sections={"generation": FACTS}), {}, {})
    inside = drawn[drawn.index('<section id="generation">') :]
    shown = " ".join(re.sub(r"<[^>]+>", " ", inside[: inside.index("</section>")]).split())
    assert "tokens 12,345" in shown
    assert "cost" not in shown
    assert "Kept 60 75.0% Too short, too long, or a refusal 4 5.0% Do not find their document 16 20.0%" in shown
    assert "question 45 75.0% claim 15 75.0%" in shown
    assert "the base model 40 50.0% BM25 20 25.0%" in shown
    assert "question is &lt;b&gt;this&lt;/b&gt; it? dense 3, bm25 –" in shown
    assert "d1 yes" in shown
    assert "These queries are synthetic" in shown


def test_without_generation_there_is_no_section() -> None:
    assert 'id="generation"' not in page(Report("evaluate", [], []), {}, {})
