"""TREC's exchange formats, so that any other tool can check a ranking: run files and qrels files.

A run file has a line `query Q0 document rank score system` for each ranked document, a qrels file
`query 0 document grade` for each judgement (https://trec.nist.gov/data/qrels_eng). Columns are parted by white space.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embfit.data.files import read_lines
from embfit.errors import UserError
from embfit.records import Collection, Qrels, Ranking
from embfit.store import write_text

log = logging.getLogger(__name__)

FLOAT32 = float(np.finfo(np.float32).max)


def write_run(path: Path, ranking: Ranking, system: str) -> None:
    """Write a run file, whole or not at all.

    Tools break ties in their own ways (trec_eval takes the larger id first, and compares float32). So a score that is
    not below the one before it is lowered to the next float32 below: every tool then reads the same order.

    Raises:
        UserError: an id holds a tab or a line break.
    """
    lines = [
        (query, "Q0", document, str(place), f"{score:.9g}", "_".join(system.split()))
        for query, documents in ranking.documents.items()
        for place, ((document, _), score) in enumerate(zip(documents, falling(documents), strict=True), 1)
    ]
    _write(path, lines)


def read_run(path: Path) -> Ranking:
    """Read a run file; documents are ranked by score, as trec_eval does, and the rank column is ignored.

    Raises:
        UserError: the file is missing or empty, or a line is malformed (named as file:line).
    """
    scored: dict[str, dict[str, float]] = {}
    for place, query, document, score in run_lines(path):
        documents = scored.setdefault(query, {})
        if document in documents:
            raise UserError(f"{place}: document {document!r} is ranked twice for query {query!r}")
        documents[document] = score
    return Ranking.of({query: documents.items() for query, documents in scored.items()})


def run_lines(path: Path) -> Iterator[tuple[str, str, str, float]]:
    """Yield each line of a run file as its place (file:line), query id, document id and score.

    Raises:
        UserError: the file is missing or empty, or a line is malformed (named as file:line).
    """
    for place, (query, _, document, _, score, _) in _lines(path, columns=6):
        yield place, query, document, _score(score, place)


def check_unknown(path: Path, unknown: Mapping[str, str], collection: Collection) -> None:
    """Make sure that a run file ranks documents of a collection, or those without text, which loading leaves out.

    Args:
        path: the file.
        unknown: ids that the collection does not have, each with what ranks it (a line, and the query).
        collection: the collection.

    Raises:
        UserError: one of them was never a document.
    """
    if strange := {name: place for name, place in unknown.items() if name not in collection.left_out}:
        name, place = next(iter(strange.items()))
        raise UserError(
            f"{place} ranks {name!r}, which is no document of {collection.name} ({len(strange)} are not); rank the "
            "documents that data.path has"
        )
    if unknown:
        log.warning("%s ranks %d documents that have no text; they are passed over", path, len(unknown))


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write a qrels file, whole or not at all.

    Raises:
        UserError: an id holds a tab or a line break.
    """
    lines = [
        (query, "0", document, str(grade)) for query, grades in qrels.items() for document, grade in grades.items()
    ]
    _write(path, lines)


def falling(documents: Sequence[tuple[str, float]]) -> np.ndarray:
    """Return ranked scores as float32 [K], ties lowered by the smallest step that makes each less than the one before.

    Raises:
        ValueError: the documents are not in order of score.
    """
    scores = np.array([score for _, score in documents], np.float32)
    if (np.diff(scores) > 0).any():
        raise ValueError("a ranking is ordered best first; this one is not")
    if (np.diff(scores) < 0).all():
        return scores
    for place in range(1, len(scores)):
        scores[place] = min(scores[place], np.nextafter(scores[place - 1], np.float32(-np.inf)))
    return scores


def _write(path: Path, lines: Sequence[tuple[str, ...]]) -> None:
    if unwritable := next((field for fields in lines for field in fields if set(field) & set("\t\r\n")), None):
        raise UserError(f"{path}: the id {unwritable!r} holds a tab or a line break; TREC files cannot carry it")
    # Spaces are what everyone writes, but part an id that holds one; our own reader tells tabs from spaces.
    separator = "\t" if any(" " in field for fields in lines for field in fields) else " "
    write_text(path, "".join(separator.join(fields) + "\n" for fields in lines))


def _lines(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each line that is not blank: its place (file:line) and its columns."""
    found = False
    for number, line in read_lines(path):
        if not line.strip():
            continue
        found = True
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != columns:
            fields = line.split()
        if len(fields) != columns:
            raise UserError(f"{path}:{number}: expected {columns} columns, got {len(fields)}")
        yield f"{path}:{number}", fields
    if not found:
        raise UserError(f"{path}: the file is empty")


def _score(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not abs(score) <= FLOAT32:
        raise UserError(f"{place}: expected a finite number as score, got {text!r}")
    return score
