"""Collections out of search logs: which documents users clicked for a query."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from embfit.data.click_grades import ClickCount, Grading, examination_weight
from embfit.data.click_rows import SPLITS, ClickColumns, ClickRow, splits_of_sessions
from embfit.data.distinct_texts import CorpusTexts, DistinctTexts, GivenText
from embfit.data.documents import Documents, corpus_texts
from embfit.data.files import Records, content_digest, table_of
from embfit.data.remote import local_path
from embfit.data.source import CollectionSource
from embfit.data.tables import CORPUS, DOCUMENTS, QUERIES, TABLES_VERSION, Tables, TableWriter, write_judgements
from embfit.errors import ConfigError, UserError
from embfit.store import Store
from embfit.text_digests import normalise
from embfit.type_hints import Location

log = logging.getLogger(__name__)

Positive = Annotated[int, Field(ge=1)]
Counted = dict[str, dict[str, dict[str, ClickCount]]]


@dataclass(frozen=True)
class ClickLog(CollectionSource):
    """Rows of a query, a document that was shown for it, and how often it was shown and clicked.

    Rows of the same query (but for case, width, blanks and the final mark) and document are added up. A document that
    was never clicked is not taken for a negative: nobody may have looked at it.

    Args:
        path: the log (.jsonl, .csv, .tsv or .parquet).
        query: the column of queries.
        document: the column of the documents' texts; None if the log has ids alone, which `corpus` knows.
        document_id: the column of the documents' ids.
        title: the column of the documents' titles.
        clicks: the column of clicks; None if each row is one click.
        impressions: the column of how often the document was shown for the query; None if the log does not say, and
            grades are then made of the numbers of clicks alone.
        position: the column of the rank at which the document was shown; needed for `position_bias`.
        session: the column of sessions. No session is in two splits.
        time: the column of times, ISO 8601 or numbers. The last sessions are `test`, those before them `dev`.
        corpus: all documents, as in `Pairs`; read whole, so that their ids are those of the log (the path within a
            folder, the `_id` of a table).
        min_clicks: a document with fewer clicks for a query is not judged.
        min_impressions: nor is one that was shown fewer times.
        prior_impressions: what the overall rate weighs beside a document's own, as so many impressions.
        min_lift: the rate of grade 1, as a multiple of the overall rate; each doubling of it is one grade more.
        max_grade: the highest grade.
        not_relevant_after: documents that were shown at least so many times for a query and never clicked are judged as
            not relevant (grade 0: given negatives); None judges none of them.
        position_bias: the exponent p of the chance that a document at rank k is looked at, 1 / k^p; clicks are divided
            by it. None takes clicks as they are.
        max_weight: the most that a click may weigh by that.

    Raises:
        ConfigError: there is a position bias to correct and no column of positions.
    """

    path: Annotated[str | None, Location(required=True)] = None
    query: str = "query"
    document: str | None = "document"
    document_id: str | None = None
    title: str | None = None
    clicks: str | None = "clicks"
    impressions: str | None = "impressions"
    position: str | None = None
    session: str | None = None
    time: str | None = None
    corpus: str | Documents | None = None
    min_clicks: Positive = 2
    min_impressions: Positive = 1
    prior_impressions: Annotated[float, Field(ge=0)] = 20
    min_lift: Annotated[float, Field(gt=0)] = 1
    max_grade: Positive = 3
    not_relevant_after: Positive | None = None
    position_bias: Annotated[float, Field(ge=0)] | None = None
    max_weight: Annotated[float, Field(ge=1)] = 10

    def __post_init__(self) -> None:
        if self.position_bias is not None and self.position is None:
            raise ConfigError("data.position_bias needs the ranks at which documents were shown: data.position=COLUMN")

    def read(self, store: Store) -> Tables:
        """Return the log's tables; parsed once, then found in the store until the log or a setting changes."""
        if not self.path:
            raise ConfigError("data=clicks needs a search log: data.path=FILE (.jsonl, .csv, .tsv or .parquet)")
        if self.document is None and (self.document_id is None or not self.corpus):
            raise ConfigError(
                "data.document=null: without texts the log needs ids and a corpus that has them: "
                "data.document_id=COLUMN data.corpus=PATH"
            )
        path = local_path(self.path, "data.path", store)
        told = path.name if self.corpus else path.suffix.lower()  # beside a corpus, documents say which file has them
        key = {"reader": "clicks", "file": [told, content_digest(path)], "settings": self._settings}
        corpus: CorpusTexts | None = None
        if self.corpus:
            corpus, key["corpus"] = corpus_texts(self.corpus, store, piece_tokens=None)
        records = table_of(path)
        if records is None:
            raise UserError(f"{path}: the suffix names no format of a log; use .jsonl, .csv, .tsv or .parquet")
        entry = store.entry(
            "collection", key, lambda folder: self._write(folder, records, corpus), version=TABLES_VERSION
        )
        return Tables(path.stem, entry)

    @property
    def _columns(self) -> ClickColumns:
        return ClickColumns(
            query=self.query,
            document=self.document,
            document_id=self.document_id,
            title=self.title,
            clicks=self.clicks,
            impressions=self.impressions,
            position=self.position if self.position_bias is not None else None,
            session=self.session,
            time=self.time,
        )

    @property
    def _grading(self) -> Grading:
        return Grading(
            self.min_clicks,
            self.min_impressions,
            self.prior_impressions,
            self.min_lift,
            self.max_grade,
            self.not_relevant_after,
        )

    @property
    def _settings(self) -> dict[str, Any]:
        shares = [self.dev_share, self.test_share, self.split_seed] if self.session or self.time else None
        return {
            "columns": vars(self._columns),
            "grading": vars(self._grading),
            "position_bias": [self.position_bias, self.max_weight],
            "shares": shares,
        }

    def _write(self, folder: Path, records: Records, corpus: CorpusTexts | None) -> None:
        facts: Counter[str] = Counter()
        splits: Mapping[str, str] = {}
        if self.session or self.time:
            rows = self._columns.rows(iter(records), Counter())
            splits = splits_of_sessions(rows, {"dev": self.dev_share, "test": self.test_share}, self.split_seed)
        with (
            TableWriter(folder / "corpus.arrow", DOCUMENTS if corpus else CORPUS) as table,
            TableWriter(folder / "queries.arrow", QUERIES) as query_table,
        ):
            documents = DistinctTexts(table, "d", corpus)
            rows = self._columns.rows(iter(records), facts)
            counted, texts = self._count(rows, splits, documents, facts)
            qrels: dict[str, dict[str, dict[str, int]]] = {}
            for split in SPLITS:
                graded, left_out = self._grading.grades(counted.get(split, {}))
                facts.update(left_out)
                if graded:
                    qrels[split] = graded
            names = {query: f"q{number}" for number, query in enumerate(texts, 1)}
            for query, text in texts.items():
                query_table.add((names[query], text), names[query])
        if not qrels:
            raise UserError(f"{records}: {_nothing(facts)}; lower data.min_clicks or data.min_lift")
        named = {split: {names[query]: found for query, found in graded.items()} for split, graded in qrels.items()}
        facts.update(documents.facts)
        _tell(str(records), facts)
        write_judgements(folder, named, facts)

    def _count(
        self, rows: Iterator[ClickRow], splits: Mapping[str, str], documents: DistinctTexts, facts: Counter[str]
    ) -> tuple[Counted, dict[str, str]]:
        """Return the counts by split, query and document, and the queries as they were first typed."""
        counted: Counted = {split: {} for split in SPLITS}
        texts: dict[str, str] = {}
        for row in rows:
            name = row.id or ""
            if row.document:
                name = documents.id_of(GivenText(row.document, row.title, row.id), row.place)
            elif name not in documents:
                facts["rows_with_unknown_documents_skipped"] += 1
                continue
            query = normalise(row.query)
            texts.setdefault(query, row.query)
            weight = 1.0
            if self.position_bias is not None and row.position is not None:
                weight = examination_weight(row.position, self.position_bias, self.max_weight)
            split = splits.get(row.session, "train")
            count = counted[split].setdefault(query, {}).setdefault(name, ClickCount())
            count.add(row.clicks, row.impressions, weight)
        for earlier, later in (("train", "dev"), ("train", "test"), ("dev", "test")):
            known = counted[later].keys() & counted[earlier].keys()
            facts["queries_kept_out_of_later_splits"] += len(known)
            for query in known:
                del counted[later][query]
        return counted, texts


def _nothing(facts: Mapping[str, int]) -> str:
    if not facts["rows"]:
        return "no rows; a row is a query, a document and its clicks"
    said = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in facts.items() if count)
    return f"no document is judged relevant ({said})"


def _tell(name: str, facts: Mapping[str, int]) -> None:
    """Say in one line each what was passed over and why."""
    for fact, count in facts.items():
        if count and fact != "rows":
            log.info(
                "%s: %s: %s of %s rows", Path(name).name, fact.replace("_", " "), f"{count:,}", f"{facts['rows']:,}"
            )
