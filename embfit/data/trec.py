"""TREC's exchange formats, so that any other tool can check a ranking: run files and qrels files.

A run file has one line `query Q0 document rank score system` per ranked document. A qrels file has one line
`query 0 document grade` per judgement (https://trec.nist.gov/data/qrels_eng). White space separates the columns.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embfit.atomic_files import write_text
from embfit.data.files import read_lines
from embfit.data.identifiers import columns_of, identifier
from embfit.errors import UserError
from embfit.records import Collection, Qrels, Ranking

log = logging.getLogger(__name__)

FLOAT32 = float(np.finfo(np.float32).max)


def write_run(path: Path, ranking: Ranking, system: str) -> None:
    """Write a run file, whole or not at all.

    Every tool breaks ties in its own way (trec_eval takes the larger id first, and compares float32). A score that is
    not below the previous one is therefore lowered to the next smaller float32, so that every tool reads the same
    order.

    Raises:
        UserError: an id contains a tab or a line break, or begins or ends with a blank.
    """
    lines = [
        (query, "Q0", document, str(place), f"{score:.9g}", "_".join(system.split()))
        for query, documents in ranking.documents.items()
        for place, ((document, _), score) in enumerate(zip(documents, falling(documents), strict=True), 1)
    ]
    _write(path, lines)


def read_run(path: Path) -> Ranking:
    """Read a run file. Documents are ranked by score, as in trec_eval; the rank column is ignored.

    Raises:
        UserError: the file is missing or empty, or a line is malformed; the message names file and line.
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
        UserError: the file is missing or empty, or a line is malformed; the message names file and line.
    """
    for place, (query, _, document, _, score, _) in _lines(path, columns=6):
        yield place, query, document, _score(score, place)


def check_unknown(path: Path, unknown: Mapping[str, str], collection: Collection) -> None:
    """Check that the unknown documents of a run file are only those that loading left out because they have no text.

    Args:
        path: the run file.
        unknown: ids that the file ranks and the collection does not have, each with its line and query.
        collection: the collection that the file should rank.

    Raises:
        UserError: one of the ids was never a document of the data.
    """
    if strange := {name: place for name, place in unknown.items() if name not in collection.left_out}:
        name, place = next(iter(strange.items()))
        raise UserError(
            f"{place} ranks {name!r}, which is not a document of {collection.name} ({len(strange)} such ids in the "
            "file); make the run over the same corpus that data reads"
        )
    if unknown:
        log.warning("%s ranks %d documents that have no text; they are skipped", path, len(unknown))


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write a qrels file, whole or not at all.

    Raises:
        UserError: an id contains a tab or a line break, or begins or ends with a blank.
    """
    lines = [
        (query, "0", document, str(grade)) for query, grades in qrels.items() for document, grade in grades.items()
    ]
    _write(path, lines)


def falling(documents: Sequence[tuple[str, float]]) -> np.ndarray:
    """Return the scores of ranked documents as float32 [K], each lowered, if need be, to just below the previous one.

    Raises:
        ValueError: the documents are not in order of score.
    """
    scores = np.array([score for _, score in documents], np.float32)
    if (np.diff(scores) > 0).any():
        raise ValueError("the documents of a ranking must be ordered best first; these are not")
    if (np.diff(scores) < 0).all():
        return scores
    for place in range(1, len(scores)):
        scores[place] = min(scores[place], np.nextafter(scores[place - 1], np.float32(-np.inf)))
    return scores


def _write(path: Path, lines: Sequence[tuple[str, ...]]) -> None:
    if unwritable := next((field for fields in lines for field in fields if not _can_be_read_back(field)), None):
        raise UserError(
            f"{path}: the id {unwritable!r} contains a tab or a line break, or begins or ends with a blank, which TREC "
            "files cannot hold; rename it"
        )
    # Everyone writes spaces, but a space would split an id that contains one; our own reader also accepts tabs.
    separator = "\t" if any(" " in field for fields in lines for field in fields) else " "
    write_text(path, "".join(separator.join(fields) + "\n" for fields in lines))


def _can_be_read_back(field: str) -> bool:
    return identifier(field) == field and not set(field) & set("\t\r\n")


def _lines(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the place (file:line) and the columns of each line that is not blank."""
    found = False
    for number, line in read_lines(path):
        if not line.strip():
            continue
        found = True
        fields = columns_of(line, by_tabs=True)
        if len(fields) != columns:
            fields = columns_of(line, by_tabs=False)
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
        raise UserError(f"{place}: the score must be a finite number, got {text!r}")
    return score
