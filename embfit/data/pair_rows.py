"""Rows of a query and its documents, written as tables that hold every text once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from embfit.data.distinct_texts import CorpusTexts, DistinctTexts, GivenText
from embfit.data.tables import CORPUS, DOCUMENTS, QUERIES, TAGGED, TableWriter, write_judgements
from embfit.errors import UserError
from embfit.records import Qrels


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


def write_pairs(
    folder: Path, rows: Mapping[str, Iterable[PairRow]], corpus: CorpusTexts | None = None, tagged: bool = False
) -> None:
    """Write the tables of a collection.

    Rows without a query or any document are left out and counted. A pair that stands in several rows gets the highest
    of its grades, so a document that is a positive in one row is never a negative of the same query. A
    negative without a title whose text is that of a titled document is that document.

    Args:
        folder: the folder to write the tables to.
        rows: the rows of each split. They are read a second time for the negatives, so that a text keeps the id that it
            has as a positive.
        corpus: further documents. A document of the rows that is one of them, or a near copy of one, becomes that one.
        tagged: whether queries have a source and a weight; those of a query's first row count.

    Raises:
        UserError: an id stands for two texts, no row is left, or no pair of a split is relevant.
    """
    with (
        TableWriter(folder / "corpus.arrow", DOCUMENTS if corpus else CORPUS) as table,
        TableWriter(folder / "queries.arrow", TAGGED if tagged else QUERIES) as query_table,
    ):
        documents, queries = DistinctTexts(table, "d", corpus), DistinctTexts(query_table, "q")
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
    _check_relevant(rows, qrels)
    facts = {"rows": read, "rows_without_text_left_out": read - used, "given_negatives": given, **documents.facts}
    write_judgements(folder, qrels, facts)


def _check_relevant(rows: Mapping[str, Iterable[PairRow]], qrels: Mapping[str, Qrels]) -> None:
    """Refuse a split without a relevant pair, which is a wrong column of labels rather than a choice.

    Raises:
        UserError: there is such a split.
    """
    for split, judged in qrels.items():
        grades = [grade for documents in judged.values() for grade in documents.values()]
        if grades and max(grades) < 1:
            raise UserError(
                f"{rows[split]}: none of the {len(grades)} pairs is relevant (data.label): each has the grade 0, and 1 "
                "or more is relevant"
            )


def _usable(row: PairRow) -> bool:
    return row.query.readable and bool(_readable(row.documents))


def _readable(texts: Iterable[GivenText]) -> list[GivenText]:
    return [text for text in texts if text.readable]
