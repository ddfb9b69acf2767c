"""Judgements and qrels files: BEIR's three columns with or without a header, and TREC's four."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from embfit.data.files import read_lines
from embfit.data.identifiers import columns_of
from embfit.errors import UserError
from embfit.records import Qrels

QUERY_NAMES = ("query", "queryid", "qid", "topic", "topicid")
MAX_GRADE = 1_000_000  # measures keep a number for each grade up to the highest; timestamps are larger
GRADE_NAMES = ("score", "grade", "label", "rel", "relevance", "relevancy", "judgement", "judgment", "rating")


class Judgement(NamedTuple):
    """A line of a qrels file: its place (`qrels/test.tsv:41`) and how relevant a document is to a query."""

    place: str
    query: str
    document: str
    grade: int


@dataclass(frozen=True)
class QrelsFile:
    """The judgements of one split: `query-id corpus-id score`, or TREC's `query-id iteration corpus-id score`.

    Tabs separate the columns, or blanks in a line without tabs. The first line is a header if it begins with `query-id`
    or a similar name, or ends with `score` or a similar name.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Judgement]:
        """Read from the start.

        Raises:
            UserError: a line has the wrong number of columns, or its grade is no grade.
        """
        width = 0
        for number, line in read_lines(self.path):
            if line.isspace():
                continue
            place = f"{self.path}:{number}"
            columns = columns_of(line, by_tabs="\t" in line)
            if not width:
                width = 4 if len(columns) == 4 else 3
                if len(columns) == width and _is_header(columns):
                    continue
            if len(columns) != width:
                hint = "; separate columns with tabs, not commas" if len(columns) == 1 and "," in line else ""
                raise UserError(f"{place}: expected {width} columns, got {len(columns)}{hint}")
            yield Judgement(place, columns[0], columns[-2], grade_of(place, "grade", columns[-1]))


def _is_header(columns: list[str]) -> bool:
    """Say whether the first line is a header; a judgement with a malformed grade must not be mistaken for one."""
    if _whole_number(columns[-1]) is not None:
        return False
    first, last = (re.sub("[^a-z]", "", column.lower()) for column in (columns[0], columns[-1]))
    return first in QUERY_NAMES or last in GRADE_NAMES


def judgements_of(lines: Iterable[Judgement]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Return the judgements of one split by query, and counts of what was changed in them.

    A judgement made twice counts once, with the higher grade. A grade below zero becomes zero. Both are counted.

    Raises:
        UserError: there are no judgements.
    """
    repeated = below_zero = 0
    judged: dict[str, dict[str, int]] = {}
    for _, query, document, grade in lines:
        found = judged.setdefault(query, {})
        repeated += document in found
        below_zero += grade < 0
        found[document] = max(grade, found.get(document, 0))
    if not judged:
        raise UserError(f"{lines} has no judgements")
    return judged, {"repeated_judgements": repeated, "grades_below_zero": below_zero}


def read_qrels(path: Path) -> Qrels:
    """Return the judgements of a file, read by the same rules as a collection's.

    Raises:
        UserError: the file cannot be read, has no judgements, or a line is malformed; the message names file and line.
    """
    return judgements_of(QrelsFile(path))[0]


def grade_of(place: str, name: str, value: object) -> int:
    """Return a grade: a whole number (`1`, `"1"` and `"1.0"` are 1).

    Args:
        place: where the grade stands, for error messages.
        name: what its column is called.
        value: what the column holds.

    Raises:
        UserError: it is not a whole number, or exceeds `MAX_GRADE`.
    """
    number = _whole_number(value)
    if number is None:
        raise UserError(f'{place}: "{name}" must be a whole number, got {value!r}')
    if abs(number) > MAX_GRADE:
        raise UserError(
            f'{place}: "{name}" is {number:,}, and a grade of relevance is at most {MAX_GRADE:,}; is this the column '
            "of grades?"
        )
    return number


def _whole_number(value: object) -> int | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None
