"""Should you fine-tune at all? The reasons of the recommendation, and the tables that they are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embfit.report.facts import fact_rows
from embfit.report.formatting import duration, interval, metric_label, signed
from embfit.report.subject import Subject

PLACE = 10

MEGABYTE = 1e6
WORDS = {
    "words": ("different words in the corpus", "{:,}"),
    "pieces_per_word": ("pieces a word, on average", "{:.2f}"),
    "split_share": ("words in four pieces or more", "{:.1%}"),
    "unknown_share": ("words without any pieces", "{:.1%}"),
    "query_words": ("words in the queries", "{:,}"),
    "query_split_share": ("query words in four pieces or more", "{:.1%}"),
    "query_rare_share": ("query words in one to three documents", "{:.1%}"),
    "query_absent_share": ("query words in no document", "{:.1%}"),
    "queries_with_rare": ("queries with a word in one to three documents", "{:.1%}"),
    "queries_with_absent": ("queries with a word in no document", "{:.1%}"),
}

QUERIES = {"documents": "documents that get queries", "queries": "queries of each", "answered": "requests answered"}


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the tables of `task=assess`."""
    found = subject.report.sections.get("assessment")
    if found is None:
        return None
    metric = found["power"].get("metric")  # None for documents without queries
    return {
        "title": "Why",
        "reasons": found["reasons"],
        "decided_by": found["decided_by"],
        "metric": metric,
        "candidates": [
            (one, subject.systems[one["system"]].metrics[metric] if metric else None) for one in found["candidates"]
        ],
        "queries": _queries(found.get("queries") or {}),
        "chunks": found["chunks"],
        "corrected": any(one.get("p_holm") is not None for one in found["chunks"].get("settings", ())),
        "words": [
            (label, form.format(found["vocabulary"][name]))
            for name, (label, form) in WORDS.items()
            if name in found["vocabulary"]
        ],
        "examples": found["vocabulary"]["split_examples"],
        "late": _late(found.get("late") or {}),
        "labels": fact_rows(found["labels"], ("unjudged_at_10",)),
        "unjudged": found["labels"].get("unjudged_at_10"),
        "power": found["power"],
        "trial": found["cost"]["trial"],
        "steps": found["cost"].get("steps"),
        "max_time": _limit(found["cost"].get("max_time")),
        "estimates": [_written(one) for one in found["cost"]["estimates"]],
        "priced": any(one["price"] is not None for one in found["cost"]["estimates"]),
    }


def _queries(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a generator would write, in words."""
    named = {QUERIES.get(name, name): value for name, value in found.items() if value}
    return fact_rows(named)


def _late(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what speaks for late interaction and what it takes, in words."""
    if not found:
        return []
    shares = {
        "queries with a word in one to three documents": found.get("rare_share"),
        "queries about a document that is cut off": found.get("cut_off_share"),
    }
    rows = [
        *((label, f"{share:.0%}") for label, share in shares.items() if share is not None),
        ("vectors a document", f"{found['vectors_per_document']:.0f}"),
        ("format by default", found["format"]),
        ("bytes a token", f"{found['bytes_per_token']:,}"),
        ("bytes a document, about", f"{found['bytes_per_document']:,.0f}"),
        ("bytes of one vector a document", f"{found['single_bytes_per_document']:,}"),
    ]
    if gain := found.get("gain"):
        told = f"{signed(gain['difference'])} ({interval(gain['ci95'], 3)}), on {gain['documents']:,} documents"
        rows.append((f"{metric_label(gain['metric'])}, late interaction − one vector", told))
    return rows


def _limit(max_time: str | float | None) -> str | None:
    return f"{max_time:g} minutes" if isinstance(max_time, (int, float)) else max_time


def _written(one: Mapping[str, Any]) -> dict[str, str]:
    """Write an estimate for people."""
    prices = {name: "" if one[name] is None else f"{one[name]:.2f}" for name in ("price", "embed_price")}
    return {
        **{name: duration(one[name]) for name in ("embed_before", "train", "embed_after", "total")},
        **prices,
        "documents": f"{one['documents']:,}",
        "vectors": f"{one['vector_bytes'] / MEGABYTE:,.0f} MB",
    }
