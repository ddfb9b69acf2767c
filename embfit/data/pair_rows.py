"""Rows of a query and its documents, written as tables that hold every text once."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from embfit.data.tables import CORPUS, QUERIES, TableWriter, write_judgements
from embfit.errors import UserError


class GivenText(NamedTuple):
    """A text as a row gives it, with its title and id if it has them."""

    text: str
    title: str = ""
    id: str | None = None

    @property
    def readable(self) -> bool:
        """Whether the text or its title is more than white space."""
        return bool(self.text.strip() or self.title.strip())


class PairRow(NamedTuple):
    """One row of a table of pairs.

    Args:
        place: where the row stands (`pairs.csv:7`).
        query: the query.
        documents: the documents that the row judges with `grade`.
        grade: how relevant `documents` are to the query.
        negatives: documents that are not relevant to the query.
    """

    place: str
    query: GivenText
    documents: Sequence[GivenText]
    grade: int
    negatives: Sequence[GivenText]


def write_pairs(folder: Path, rows: Mapping[str, Iterable[PairRow]]) -> None:
    """Write the tables of a collection.

    Rows without a query or any document are left out and counted. A pair that stands in several rows gets the highest
    of its grades, so a document that is a positive in one row is never a negative of the same query. Negatives come
    without a title; a negative whose text is that of a titled document is that document.

    Args:
        folder: the folder to write the tables to.
        rows: the rows of each split. They are read a second time for the negatives, so that a text keeps the id that it
            has as a positive.

    Raises:
        UserError: an id stands for two texts, or no row is left.
    """
    with (
        TableWriter(folder / "corpus.arrow", CORPUS) as corpus,
        TableWriter(folder / "queries.arrow", QUERIES) as query_table,
    ):
        documents, queries = _DistinctTexts(corpus, "d"), _DistinctTexts(query_table, "q")
        qrels: dict[str, dict[str, dict[str, int]]] = {split: {} for split in rows}
        read = used = given = 0
        for split, its_rows in rows.items():
            for row in its_rows:
                read += 1
                if _usable(row):
                    used += 1
                    given += len(_readable(row.negatives))
                    grades = qrels[split].setdefault(queries.id_of(row.query, row.place), {})
                    for document in _readable(row.documents):
                        name = documents.id_of(document, row.place)
                        grades[name] = max(row.grade, grades.get(name, 0))
        for split, its_rows in rows.items() if given else ():
            for row in filter(_usable, its_rows):
                grades = qrels[split][queries.id_of(row.query, row.place)]
                for negative in _readable(row.negatives):
                    names = documents.ids_of(negative, row.place)
                    if not any(name in grades for name in names):
                        grades[names[0]] = 0
    files = ", ".join(map(str, rows.values()))
    if not read:
        raise UserError(f"there are no rows in {files}; a row holds a query and a document that answers it")
    if not used:
        raise UserError(
            f"{files}: none of the {read} rows has both a query and a positive; check data.query and data.positive"
        )
    facts = {"rows": read, "rows_without_text_left_out": read - used, "given_negatives": given}
    write_judgements(folder, qrels, facts)


def _usable(row: PairRow) -> bool:
    return row.query.readable and bool(_readable(row.documents))


def _readable(texts: Iterable[GivenText]) -> list[GivenText]:
    return [text for text in texts if text.readable]


class _DistinctTexts:
    """Writes every distinct text once, under the first id that a row gives it, or under a number."""

    def __init__(self, table: TableWriter, prefix: str) -> None:
        self._table = table
        self._numbers = (f"{prefix}{number}" for number in itertools.count(1))
        self._ids: dict[bytes, str] = {}  # digest of the text with its title → its id
        self._titled: dict[bytes, list[str]] = {}  # digest of a text that has titles → the ids of all of them
        self._digests: dict[str, bytes] = {}  # any id → digest of the text that it stands for

    def id_of(self, given: GivenText, place: str) -> str:
        """Return the text's id, adding the text if it is new.

        Raises:
            UserError: the id that the row gives stands for another text.
        """
        digest = _digest(given)
        known = self._ids.get(digest)
        name = given.id or known or next(name for name in self._numbers if name not in self._digests)
        if self._digests.setdefault(name, digest) != digest:
            raise UserError(
                f'{place}: the id "{name}" stands for another text in an earlier row; give each text an id of its own'
            )
        if known is None:
            texts = (given.title, given.text) if self._table.columns == CORPUS else (given.text,)
            self._table.add((name, *texts), place)
            known = self._ids[digest] = name
            if given.title:
                self._titled.setdefault(_digest(GivenText(given.text)), []).append(name)
        return known

    def ids_of(self, untitled: GivenText, place: str) -> list[str]:
        """Return the ids of all documents with this text, whatever their titles, adding the text if it is new."""
        digest = _digest(untitled)
        known = [self._ids[digest]] if digest in self._ids else []
        return [*known, *self._titled.get(digest, ())] or [self.id_of(untitled, place)]


def _digest(given: GivenText) -> bytes:
    text = f"{given.title}\0{given.text}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
