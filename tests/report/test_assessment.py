import re
from html import unescape
from typing import Any

from embfit.compose.value_origins import Origins
from embfit.report.page import page
from embfit.report.sections.assessment import section
from embfit.report.subject import Subject
from embfit.report.verdict import verdict
from tests.report.reports import collection, report

FOUND: dict[str, Any] = {
    "action": "fine-tune",
    "recommendation": "Fine-tune, from the base.",
    "reasons": ["Because 0.5 < 0.7.", "There are 725 training queries."],
    "decided_by": 0,
    "candidates": [
        {
            "system": "base",
            "parameters": 22_700_000,
            "max_length": 256,
            "bytes_per_document": 1536,
            "documents_per_second": 31.44,
            "truncated": 0.68,
        }
    ],
    "chunks": {
        "metric": "ndcg@10",
        "documents": 2000,
        "settings": [
            {"name": "cut off", "tokens": 256, "pieces_per_document": 1.0, "metrics": {"ndcg@10": 0.7}},
            {
                "name": "pieces of 256",
                "tokens": 256,
                "pieces_per_document": 2.5,
                "metrics": {"ndcg@10": 0.72},
                "difference": 0.02,
                "ci95": [0.01, 0.03],
                "p": 0.004,
            },
        ],
    },
    "vocabulary": {
        "words": 31_000, "pieces_per_word": 1.266, "split_share": 0.057, "unknown_share": 0.0, "query_words": 900,
        "query_split_share": 0.138, "query_rare_share": 0.02, "query_absent_share": 0.001, "queries_with_rare": 0.25,
        "queries_with_absent": 0.125,
        "split_examples": ["angiogenesis"],
    },
    "labels": {"queries": 4, "relevant_per_query": 1.0, "unjudged_at_10": {"base": 0.9, "bm25": 0.85}},
    "power": {"metric": "ndcg@10", "queries": 4, "deviation": 0.3, "table": {"0.01": 7849, "0.05": 314}},
    "cost": {
        "trial": {"steps": 8, "step_seconds": 2.5, "steps_per_epoch": 24.0, "peak_memory_gb": 1.6},
        "estimates": [
            {
                "documents": 50_000, "embed_before": 1600.0, "train": 2000.0, "embed_after": 1600.0, "total": 5200.0,
                "price": 0.722, "embed_price": 0.222, "vector_bytes": 76_800_000,
            }
        ],
    },
}  # fmt: skip


def text(found: dict[str, Any]) -> str:
    drawn = page(report(task="assess", sections={"assessment": found}), {}, Origins(), collection())
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", drawn.split("<body>")[1])).split())


def test_the_tables_say_what_was_measured() -> None:
    told = text(FOUND)
    for said in (
        "Because 0.5 < 0.7. This decided. There are 725 training queries.",
        "base 0.6577 31.4 1,536 22.7 M 256 68 %",
        "cut off at 256 tokens 0.7000 1.0",
        "pieces of 256 tokens 0.7200 2.5 +0.0200 +0.010 to +0.030 0.004",
        "words in four pieces or more 5.7%",
        "by number of documents: angiogenesis.",
        "base 90 %, bm25 85 %.",
        "queries 7,849 314",
        "50,000 26 min 40 s 33 min 20 s 26 min 40 s 1 h 26 min 0.72 0.22 77 MB",
        "Extrapolated from 8 steps timed here (2.50 s each, 24 an epoch, 1.60 GB)",
    ):
        assert said in told


def test_what_is_not_known_and_what_was_corrected_is_said() -> None:
    chunks = FOUND["chunks"]
    whole, pieces = chunks["settings"]
    told = text(
        FOUND
        | {
            "power": {"metric": "ndcg@10", "queries": 1, "deviation": None, "table": {"0.01": None, "0.05": None}},
            "chunks": {**chunks, "settings": [whole, {**pieces, "p_holm": 0.008}]},
            "cost": {**FOUND["cost"], "steps": 40, "max_time": 90.0},
        }
    )
    for said in (
        "queries – –",
        "and not known here: no difference between systems varies. There are 1 query.",
        "pieces of 256 tokens 0.7200 2.5 +0.0200 +0.010 to +0.030 0.008",
        "p, corrected",
        "for 40 steps, however many documents there are, in 90 minutes at most.",
        "queries with a word in no document 12.5%",
    ):
        assert said in told


def test_what_was_not_measured_is_left_out() -> None:
    told = text(FOUND | {"chunks": {}, "cost": {"trial": None, "estimates": []}})
    assert "Long documents" not in told
    assert "What a fine-tuning would take" not in told


def test_the_recommendation_is_the_verdict() -> None:
    assert verdict(report(sections={"assessment": FOUND})) == ["Fine-tune, from the base."]
    assert section(Subject(report(), {}, Origins())) is None
