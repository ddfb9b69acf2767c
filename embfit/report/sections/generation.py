"""What was asked of a generator, what it wrote, what filters dropped, and queries to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embfit.report.facts import fact_rows
from embfit.report.subject import Subject

PLACE = 95

DRAWN = ("dropped", "styles", "examples", "source_first", "evaluation")
MEANINGS = {
    "kept": "Kept",
    "form": "Too short, too long, or a refusal",
    "improbable": "Improbable by the model that wrote them",
    "mention": "Speak of the document itself",
    "language": "In another language",
    "leak": "Equal to a query that evaluates, or to an example",
    "copy": "Copied from the document",
    "duplicate": "The same words twice for one document",
    "general": "The same query for too many documents",
    "similar": "Nearly the same as another query of the document",
    "round_trip": "Do not find their document",
    "cross_encoder": "Another document is above theirs, says the cross-encoder",
    "judge": "Not answered by their document, says the judge",
    "review": "Dropped by a person",
}
RANKERS = {"dense": "the base model", "bm25": "BM25", "cross_encoder": "the cross-encoder"}


def section(subject: Subject) -> dict[str, Any] | None:
    """Return, for each generator that wrote queries, what was counted, what became of them, and examples."""
    facts = subject.report.sections.get("generation")
    if not facts:
        return None
    other = facts.get("evaluation")
    writers = [_writer("", facts)]
    if other:
        writers = [
            _writer(f"Queries that train, written by {facts['generator']}", facts),
            _writer(f"Queries that evaluate, written by {other['generator']}", other),
        ]
    return {"title": "Generated queries", "writers": writers}


def _writer(heading: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page shows of one generator's queries."""
    whole = max(1, facts["generated"])
    outcomes = {"kept": facts["kept"], **facts["dropped"]}
    return {
        "heading": heading,
        "rows": fact_rows({name: value for name, value in facts.items() if value is not None}, drawn=DRAWN),
        "outcomes": [
            {"name": MEANINGS[name], "count": count, "share": count / whole}
            for name, count in outcomes.items()
            if count
        ],
        "styles": [
            {"name": name, "count": one["kept"], "share": one["kept"] / one["generated"]}
            for name, one in facts["styles"].items()
        ],
        "first": [
            {"name": RANKERS[name], "count": count, "share": count / whole}
            for name, count in facts["source_first"].items()
        ],
        "examples": [{"name": MEANINGS[name], "queries": found} for name, found in facts["examples"].items()],
    }
