"""Collections made from a table of (query, positive[, negatives]) rows: JSONL, CSV, TSV or Parquet."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from embfit.compose.command_line import typed
from embfit.data.distinct_texts import CorpusTexts, GivenText
from embfit.data.documents import Documents, corpus_texts
from embfit.data.files import Delimited, Records, content_digest, table_of, text_of
from embfit.data.identifiers import id_of, identifier
from embfit.data.pair_rows import PairRow, write_pairs
from embfit.data.qrels import grade_of
from embfit.data.remote import local_path
from embfit.data.source import CollectionSource, choose_splits
from embfit.data.tables import TABLES_VERSION, Tables
from embfit.errors import ConfigError, UserError
from embfit.store import Store
from embfit.type_hints import Location

log = logging.getLogger(__name__)

OBJECT_IDS = ("docid", "_id", "id")  # names of the id of a document that is an object


@dataclass(frozen=True)
class Pairs(CollectionSource):
    """Rows that each hold a query and a document that answers it.

    Rows with the same query become one query, and equal documents become one document. Only `query` and `positive` are
    required.

    Args:
        path: a file of training data from which splits are held out, or split → file (`{train: a.jsonl, test:
            b.jsonl}`). The suffix tells the format: .jsonl, .csv, .tsv or .parquet.
        query: the column with the query.
        positive: the column with the relevant document; in JSONL and Parquet it holds a text, an object with `text` and
            perhaps `title` and `docid`, or a list of these.
        negatives: the column or columns with documents that look relevant and are not: what `positive` may hold (empty
            texts are skipped). They become judgements of grade 0, which miners use as given negatives. None reads the
            column `negatives` if the file has one; an empty list reads none.
        label: the column with the positive's grade: 0 is not relevant, 1 is relevant, higher is better. None makes
            every grade 1.
        title: the column with the positive's title; None if positives have no titles.
        query_id: the column with the query's id; None numbers the queries q1, q2, …
        document_id: the column with the positive's id, a list if the positive is a list; None numbers the documents d1,
            d2, …
        source: the column with the source of the query (a product, a team, a tool), which `training.batching=by_source`
            keeps apart; None if there is none.
        weight: the column with how much a query counts in training, a number above 0; None counts all alike.
        corpus: documents beside those of the rows, so that pairs are mined and measured among all of them: a folder,
            file or table that is read as `data=documents` reads it, or a choice of its own with other settings. A
            document of the rows that is one of its pieces, or nearly, becomes that piece.
    """

    path: Annotated[str | dict[str, str] | None, Location(required=True)] = None
    query: str = "query"
    positive: str = "positive"
    negatives: str | list[str] | None = None
    label: str | None = None
    title: str | None = None
    query_id: str | None = None
    document_id: str | None = None
    source: str | None = None
    weight: str | None = None
    corpus: str | Documents | None = None

    def read(self, store: Store) -> Tables:
        """Return the files' tables; files are parsed once, and read from the store until a file or a column changes."""
        if not self.path:
            raise ConfigError("data=pairs needs a file: data.path=FILE (.jsonl, .csv, .tsv or .parquet)")
        paths = self.path if isinstance(self.path, dict) else {"train": self.path}
        named = {
            split: local_path(path, f"data.path.{split}" if isinstance(self.path, dict) else "data.path", store)
            for split, path in paths.items()
        }
        files = choose_splits(named, None, "data.path")
        rows = {split: _PairRows(_table(path), self) for split, path in files.items()}
        key = {
            "reader": "pairs",
            "files": {split: [self._told(path), content_digest(path)] for split, path in files.items()},
            "columns": self.columns,
            "negatives_if_there": self.negatives is None,
        }
        corpus: CorpusTexts | None = None
        if self.corpus:
            corpus, key["corpus"] = corpus_texts(self.corpus, store)
        entry = store.entry(
            "collection", key, lambda folder: write_pairs(folder, rows, corpus, self._tagged), version=TABLES_VERSION
        )
        return Tables(next(iter(files.values())).stem, entry)

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns to read, by the parameters that name them."""
        given = {
            "query": self.query,
            "positive": self.positive,
            "negatives": self.negatives,
            "label": self.label,
            "title": self.title,
            "query_id": self.query_id,
            "document_id": self.document_id,
            "source": self.source,
            "weight": self.weight,
        }
        return {name: [value] if isinstance(value, str) else value for name, value in given.items() if value}

    def _told(self, path: Path) -> str:
        """Return what the tables depend on of a file's name: beside a corpus they say which file a document is from."""
        return path.name if self.corpus else path.suffix.lower()

    @property
    def _tagged(self) -> bool:
        return self.source is not None or self.weight is not None

    def _tags(self, place: str, record: Mapping[str, Any]) -> tuple[str, ...]:
        """Return source and weight of a row's query, as texts; an empty weight is that of all others."""
        if not self._tagged:
            return ()
        source = text_of(place, record, self.source) if self.source else ""
        if self.weight is None or record.get(self.weight) in (None, ""):
            return source, ""
        try:
            weight = float(record[self.weight])
        except (TypeError, ValueError):
            weight = math.nan
        if not 0 < weight < math.inf:
            raise UserError(f'{place}: "{self.weight}" must be a number above 0, got {record[self.weight]!r}')
        return source, repr(weight)

    def row(self, place: str, record: Mapping[str, Any]) -> PairRow:
        """Return a record as a row of pairs.

        Args:
            place: where the record stands, for error messages.
            record: the record's fields.

        Raises:
            UserError: a column is missing, or its value has the wrong type.
        """
        documents = _texts(place, record, self.positive)
        if self.document_id:
            ids = [identifier(one.text) for one in _texts(place, record, self.document_id)]
            if len(ids) != len(documents):
                raise UserError(
                    f'{place}: the row has {len(documents)} "{self.positive}" and {len(ids)} "{self.document_id}"; '
                    "give each document one id"
                )
            documents = [given._replace(id=name) for given, name in zip(documents, ids, strict=True)]
        if self.title and (title := text_of(place, record, self.title, "")):
            documents = [given._replace(title=title) for given in documents]
        grade = grade_of(place, self.label, record.get(self.label)) if self.label else 1
        return PairRow(
            place=place,
            query=GivenText(
                text_of(place, record, self.query),
                id=id_of(place, record, self.query_id) if self.query_id else None,
                tags=self._tags(place, record),
            ),
            documents=documents,
            grade=max(0, grade),
            negatives=[
                given
                for column in (["negatives"] if self.negatives is None else self.columns.get("negatives", []))
                if record.get(column) is not None
                for given in _texts(place, record, column)
            ],
        )


@dataclass
class _PairRows:
    """The rows of a file, checked for missing columns."""

    records: Records
    pairs: Pairs
    unread_logged: bool = False  # rows may be read twice, and unread columns are logged once

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
        self._log_unread(there)
        if isinstance(self.records, Delimited):
            place = f"{self.records}:1"  # the header, which every row repeats
        for column, name in absent.items() if record else ():
            raise UserError(f'{place}: there is no column "{column}" (data.{name}); the columns are {", ".join(there)}')

    def _log_unread(self, there: Iterable[str]) -> None:
        """Log once which columns are not read, since one of them may be a label or an id."""
        read = {"negatives", *(column for columns in self.pairs.columns.values() for column in columns)}
        unread = [column for column in there if column not in read]
        if unread and not self.unread_logged:
            log.info("%s: these columns are not read: %s", self.records, ", ".join(unread))
        self.unread_logged = True


def _table(path: Path) -> Records:
    if path.is_dir():
        beir = (path / "corpus.jsonl").is_file()
        remedy = f"read it with data=beir {typed('data.path', str(path))}" if beir else "name a file: data.path=FILE"
        raise UserError(f"{path} is a folder; {remedy}")
    if (records := table_of(path)) is not None:
        return records
    raise UserError(f'{path}: the suffix "{path.suffix}" is not a known format; use .jsonl, .csv, .tsv or .parquet')


def _texts(place: str, record: Mapping[str, Any], column: str) -> list[GivenText]:
    """Return what a column holds: a text, an object with a text, or a list of these."""
    value = record.get(column)
    if isinstance(value, Mapping):
        return [_text_of_object(f'{place}, "{column}"', value)]
    if not isinstance(value, list):
        return [GivenText(text_of(place, record, column))]
    within = f'{place}, "{column}"'
    return [
        _text_of_object(f"{within} {at}", one)
        if isinstance(one, Mapping)
        else GivenText(text_of(within, {str(at): one}, str(at)))
        for at, one in enumerate(value)
    ]


def _text_of_object(place: str, found: Mapping[str, Any]) -> GivenText:
    """Return a document that is an object, as Tevatron and the BEIR layout write one: its text, title and id."""
    name = next((key for key in OBJECT_IDS if found.get(key) is not None), None)
    return GivenText(
        text_of(place, found, "text"), text_of(place, found, "title", ""), id_of(place, found, name) if name else None
    )
