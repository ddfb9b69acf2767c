"""Collections out of a table of (query, positive[, negatives]) rows: JSONL, CSV, TSV or Parquet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from embfit.data.files import Delimited, JsonLines, Parquet, Records, content_digest, text_of
from embfit.data.pair_rows import GivenText, PairRow, write_pairs
from embfit.data.qrels import grade_of
from embfit.data.source import CollectionSource, choose_splits
from embfit.data.tables import TABLES_VERSION, Tables
from embfit.errors import ConfigError, UserError
from embfit.hints import Location
from embfit.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs(CollectionSource):
    """Rows of a query and a document that answers it.

    Rows of the same query are one query, equal documents are one document. Only `query` and `positive` are needed.

    Args:
        path: a file, all of it training data from which splits are held out; or split → file
            (`{train: a.jsonl, test: b.jsonl}`). The suffix says the format: .jsonl, .csv, .tsv or .parquet.
        query: the column of queries.
        positive: the column of relevant documents; in JSONL and Parquet a text or a list of texts.
        negatives: the column, or columns, of documents that look relevant and are not; texts (an empty one is none) or
            lists of texts. They become judgements of grade 0, which miners take for given negatives. None: `negatives`,
            where the file has it; an empty list: none.
        label: the column of the positive's grade: 0 not relevant, 1 relevant, more is better. None: all are 1.
        title: the column of the positive's title. None: it has none.
        query_id: the column of the query's id. None: queries are q1, q2, …
        document_id: the column of the positive's id, a list where the positive is one. None: documents are d1, d2, …
    """

    path: Annotated[str | dict[str, str] | None, Location(required=True)] = None
    query: str = "query"
    positive: str = "positive"
    negatives: str | list[str] | None = None
    label: str | None = None
    title: str | None = None
    query_id: str | None = None
    document_id: str | None = None

    def read(self, store: Store) -> Tables:
        """Return the files' tables; parsed once, then found in the store until a file or a column changes."""
        if not self.path:
            raise ConfigError("data=pairs needs a file: data.path=FILE (.jsonl, .csv, .tsv or .parquet)")
        paths = self.path if isinstance(self.path, dict) else {"train": self.path}
        files = choose_splits({split: Path(path).expanduser() for split, path in paths.items()}, None, "data.path")
        rows = {split: _PairRows(_table(path), self) for split, path in files.items()}
        key = {
            "reader": "pairs",
            "files": {split: [path.suffix.lower(), content_digest(path)] for split, path in files.items()},
            "columns": self.columns,
            "negatives_if_there": self.negatives is None,
        }
        entry = store.entry("collection", key, lambda folder: write_pairs(folder, rows), version=TABLES_VERSION)
        return Tables(next(iter(files.values())).stem, entry)

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns that are read, by the parameters that name them."""
        given = {
            "query": self.query,
            "positive": self.positive,
            "negatives": self.negatives,
            "label": self.label,
            "title": self.title,
            "query_id": self.query_id,
            "document_id": self.document_id,
        }
        return {name: [value] if isinstance(value, str) else value for name, value in given.items() if value}

    def row(self, place: str, record: Mapping[str, Any]) -> PairRow:
        """Return what a record says.

        Raises:
            UserError: a column is missing or holds something else than it should.
        """
        texts = _texts(place, record, self.positive)
        ids: list[str | None] = [*_texts(place, record, self.document_id)] if self.document_id else [None] * len(texts)
        if len(ids) != len(texts):
            raise UserError(f'{place}: {len(texts)} "{self.positive}" and {len(ids)} "{self.document_id}" in one row')
        title = text_of(place, record, self.title, "") if self.title else ""
        label = record.get(self.label) if self.label else 1
        grade = grade_of(label)
        if grade is None:
            raise UserError(f'{place}: "{self.label}" must be a whole number, got {label!r}')
        return PairRow(
            place=place,
            query=GivenText(
                text_of(place, record, self.query), id=text_of(place, record, self.query_id) if self.query_id else None
            ),
            documents=[GivenText(text, title, name) for text, name in zip(texts, ids, strict=True)],
            grade=max(0, grade),
            negatives=[
                GivenText(text)
                for column in (["negatives"] if self.negatives is None else self.columns.get("negatives", []))
                if record.get(column) is not None
                for text in _texts(place, record, column)
            ],
        )


@dataclass
class _PairRows:
    """The rows of a file, checked for columns that it does not have."""

    records: Records
    pairs: Pairs
    is_told: bool = False  # rows are read again to find the place of an error, and what is unread is said once

    def __str__(self) -> str:
        return str(self.records)

    def __iter__(self) -> Iterator[PairRow]:
        absent = {column: name for name, columns in self.pairs.columns.items() for column in columns}
        there: dict[str, None] = {}  # columns of any row, in order
        place = ""
        record: Mapping[str, Any] = {}
        for place, record in self.records:
            absent = {column: name for column, name in absent.items() if column not in record}
            there |= dict.fromkeys(record)
            if self.pairs.query in absent or self.pairs.positive in absent:
                break
            yield self.pairs.row(place, record)
        self._tell_unread(there)
        if isinstance(self.records, Delimited):
            place = f"{self.records}:1"  # the header, which every row repeats
        for column, name in absent.items() if record else ():
            raise UserError(f'{place}: no column "{column}" (data.{name}); there are: {", ".join(there)}')

    def _tell_unread(self, there: Iterable[str]) -> None:
        """Say once which columns nobody asked for: one of them may be a label or an id."""
        read = {"negatives", *(column for columns in self.pairs.columns.values() for column in columns)}
        unread = [column for column in there if column not in read]
        if unread and not self.is_told:
            log.info("%s: columns that are not read: %s", self.records, ", ".join(unread))
        self.is_told = True


def _table(path: Path) -> Records:
    if path.is_dir():
        beir = (path / "corpus.jsonl").is_file()
        remedy = f"read it with data=beir data.path={path}" if beir else "name a file: data.path=FILE"
        raise UserError(f"{path} is a folder; {remedy}")
    match path.suffix.lower():
        case ".jsonl":
            return JsonLines(path)
        case ".csv":
            return Delimited(path, ",")
        case ".tsv":
            return Delimited(path, "\t")
        case ".parquet":
            return Parquet(path)
    raise UserError(f'{path}: the suffix "{path.suffix}" says no format; use .jsonl, .csv, .tsv or .parquet')


def _texts(place: str, record: Mapping[str, Any], column: str) -> list[str]:
    value = record.get(column)
    if not isinstance(value, list):
        return [text_of(place, record, column)]
    return [text_of(f'{place}, "{column}"', {str(at): text}, str(at)) for at, text in enumerate(value)]
