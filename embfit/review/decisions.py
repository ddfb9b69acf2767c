"""`review.jsonl`: what people decided about generated queries. A decision overrides the filters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embfit.data.files import JsonLines, text_of
from embfit.errors import UserError
from embfit.generator.pipeline import WrittenQueries

log = logging.getLogger(__name__)

KEEP, DROP, SKIP = "keep", "drop", "skip"
REVIEW = "review"  # the mark of a query that a person dropped
STAYS = "leak"  # a query that evaluates trains on nothing, whoever finds it good


@dataclass(frozen=True)
class Decisions:
    """What people decided about generated queries.

    Args:
        path: the file that says so.
        answers: query id → `keep` or `drop`.
        skipped: queries that were looked at and that no line decides.
        changed: queries that were decided more than once, in different ways; the last decision counts.
    """

    path: Path
    answers: Mapping[str, str]
    skipped: int = 0
    changed: int = 0


def read_decisions(path: Path) -> Decisions:
    """Read decisions: JSON lines with the keys `query_id` and `answer` (`keep`, `drop` or `skip`).

    A query that one person decided and another skipped is decided.

    Raises:
        UserError: the file cannot be read or has no line, or a line is malformed; the message names file and line.
    """
    answers: dict[str, str] = {}
    skipped, changed = set(), set()
    for place, record in JsonLines(path):
        query, answer = text_of(place, record, "query_id"), text_of(place, record, "answer")
        if answer not in (KEEP, DROP, SKIP):
            raise UserError(f'{place}: "answer" must be keep, drop or skip, got {answer!r}')
        if answer == SKIP:
            skipped.add(query)
            continue
        if answers.get(query, answer) != answer:
            changed.add(query)
        answers[query] = answer
    if not (answers or skipped):
        raise UserError(f"{path} has no decisions; export them on the page that `embfit review RUN` writes")
    return Decisions(path, answers, len(skipped - answers.keys()), len(changed))


def answers_of(decisions: Decisions | None) -> Mapping[str, str]:
    """Return query id → `keep` or `drop`; nothing where there are no decisions."""
    return {} if decisions is None else decisions.answers


def apply_decisions(
    written: Sequence[WrittenQueries], decisions: Decisions | None
) -> tuple[list[WrittenQueries], dict[str, Any]]:
    """Mark generated queries by what people decided, in the place of what filters say, and log how the two agree.

    Queries that are dropped get the mark `review`. Those that evaluate (`leak`) stay dropped.

    Args:
        written: what generators wrote, with the filters' marks.
        decisions: what people decided; None where they have not.

    Returns:
        The same queries with new marks, and what the report says of it, under `review`: `kept`, `dropped`, `overruled`
        (of these two, where filters said otherwise), `leaks` (kept by a person, and dropped all the same), `skipped`,
        `changed`, `unknown` (decisions about queries that are not among these). Without decisions nothing is said.
    """
    if decisions is None:
        return list(written), {}
    counts: Counter[str] = Counter()
    known: set[str] = set()
    found = []
    for one in written:
        marks = []
        for query, mark in zip(one.made.queries, one.marks.dropped_by, strict=True):
            answer = decisions.answers.get(query.id)
            if answer is not None and query.id not in known:
                known.add(query.id)
                if mark == STAYS and answer == KEEP:
                    counts["leaks"] += 1
                else:
                    counts["kept" if answer == KEEP else "dropped"] += 1
                    counts["overruled"] += (mark is None) != (answer == KEEP)
            marks.append(_decided(mark, answer))
        found.append(replace(one, marks=replace(one.marks, dropped_by=marks)))
    facts = {
        **{name: counts[name] for name in ("kept", "dropped", "overruled", "leaks")},
        "skipped": decisions.skipped,
        "changed": decisions.changed,
        "unknown": len(decisions.answers) - len(known),
    }
    log.info("%s: %s", decisions.path, _told(facts))
    return found, {"review": facts}


def _decided(mark: str | None, answer: str | None) -> str | None:
    if answer is None or mark == STAYS:
        return mark
    return None if answer == KEEP else mark or REVIEW


def _told(facts: Mapping[str, int]) -> str:
    others = {
        "leaks": "for queries that evaluate, which stay dropped",
        "skipped": "skipped",
        "changed": "decided in two ways, of which the last counts",
        "unknown": "about queries that are not among these",
    }
    said = (
        f"{facts['kept'] + facts['dropped']:,} decisions are used, {facts['kept']:,} keep and "
        f"{facts['dropped']:,} drop, {facts['overruled']:,} of them against the filters"
    )
    return ", ".join([said, *(f"{facts[name]:,} {words}" for name, words in others.items() if facts[name])])
