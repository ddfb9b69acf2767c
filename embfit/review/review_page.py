"""The page on which generated queries are reviewed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embfit.index.language import language_of
from embfit.report.sections.generation import MEANINGS
from embfit.review.card_page import Answer, Card, CardPage
from embfit.review.decisions import DROP, KEEP
from embfit.review.matched_words import WordMatcher
from embfit.review.query_cards import ReviewedTable
from embfit.store import digest

SHOWN = {
    "style": "style",
    "model": "written by",
    "rank_dense": "rank by vectors",
    "rank_bm25": "rank by BM25",
    "log_probability": "log-probability",
    "copied_words": "words copied in a row",
}
"""Columns of `queries.parquet` that a card shows first, and what they are called there."""

NOT_SHOWN = ("seed", "temperature", "held_out")  # say nothing of how good a query is


def review_page(table: ReviewedTable, chosen: Sequence[Mapping[str, Any]]) -> CardPage:
    """Return the page of some queries.

    Args:
        table: has the documents.
        chosen: its rows, in the order of the cards.
    """
    collection = table.collection
    matcher = WordMatcher(language_of("auto", collection, table.store, "generator.filters.language"))
    documents = collection.corpus.select([collection.document_rows[row["document_id"]] for row in chosen])
    marks = {row.get("dropped_by") for row in chosen}
    return CardPage(
        kind="review",
        name=collection.name,
        source=digest({"queries": sorted(row["_id"] for row in table.rows)}),
        answers=[Answer(KEEP, "a", "Keep"), Answer(DROP, "x", "Drop")],
        cards=[
            Card(
                query_id=row["_id"],
                query=row["text"],
                document_id=row["document_id"],
                title=title,
                text=text,
                shared=matcher.shared(row["text"], f"{title} {text}"),
                facts=list(_facts(row)),
                verdict=row.get("dropped_by") or KEEP,
            )
            for row, title, text in zip(chosen, documents["title"], documents["text"], strict=True)
        ],
        verdicts={
            mark or KEEP: (filters_say(mark), KEEP if mark is None else DROP)
            for mark in sorted(marks, key=lambda mark: mark or "")
        },
        hint="python -m embfit … task.review=review.jsonl run.dir=NEW",
    )


def filters_say(mark: str | None) -> str:
    """Say what a mark means; None is that of queries that all filters keep."""
    if mark is None:
        return "keep"
    meaning = MEANINGS.get(mark, mark)
    return f"drop: {meaning[:1].lower()}{meaning[1:]}"


def _facts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of a query, as names and values that a person reads."""
    found = {name: row.get(name) for name in SHOWN}
    found |= {name: value for name, value in row.items() if isinstance(value, int | float) and name not in NOT_SHOWN}
    for name, value in found.items():
        if value is not None:
            yield SHOWN.get(name, name.replace("_", " ")), f"{value:.2f}" if isinstance(value, float) else str(value)
    if row.get("held_out"):
        yield "held out", "evaluates, and does not train"
    ranks = [value for name, value in row.items() if name.startswith("rank_")]
    if ranks and not any(ranks):
        yield "ranks", "beyond 100, or not looked for"
