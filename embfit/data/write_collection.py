"""Records of documents, queries and judgements, written as a collection's tables with every reference checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection as Container
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute

from embfit.data.files import Record, Records, text_of
from embfit.data.identifiers import id_of
from embfit.data.qrels import Judgement, judgements_of
from embfit.data.tables import CORPUS, LEFT_OUT, TAGGED, TableWriter, write_judgements
from embfit.errors import UserError

ID_KEYS = ("_id", "id")  # BEIR's name of an id, and that of MTEB's newer data sets


def write_collection(
    folder: Path,
    documents: Records,
    queries: Records,
    judgements: Mapping[str, Iterable[Judgement]],
    skip_unknown: bool,
) -> None:
    """Write the tables of a collection.

    A document without text is left out unless it is judged. A query without text is left out with its judgements. A
    judgement made twice counts once, with the higher grade. A grade below zero becomes zero. All of these are counted.

    Args:
        folder: the folder to write the tables to.
        documents: records with `_id` (or `id`), `text` and optionally `title`.
        queries: records with `_id` (or `id`), `text` and optionally `source`.
        judgements: the judgements of each split; they are read a second time if one of them is wrong.
        skip_unknown: whether judgements that name an unknown document or query are left out and counted; false makes
            the first of them an error.

    Raises:
        UserError: an id is missing, empty, used twice or (unless skipped) unknown; a field is not a text; or there are
            no documents or no queries.
    """
    qrels, facts = _read_judgements(judgements)
    judged_documents = {document for judged in qrels.values() for found in judged.values() for document in found}
    judged_queries = {query for judged in qrels.values() for query in judged}

    facts |= _write_documents(folder / "corpus.arrow", documents, judged_documents)
    without_text = _write_queries(folder / "queries.arrow", queries)
    unknown_documents = _missing(judged_documents, _unique_ids(folder / "corpus.arrow", documents))
    unknown_queries = _missing(judged_queries, _unique_ids(folder / "queries.arrow", queries)) - without_text
    unknown: dict[str, dict[str, int]] = {}
    if unknown_documents or unknown_queries:
        unknown = _count_unknown(judgements, unknown_documents, unknown_queries, skip_unknown)

    left_out = unknown_queries | without_text
    kept = {
        split: {
            query: {name: grade for name, grade in found.items() if name not in unknown_documents}
            for query, found in judged.items()
            if query not in left_out
        }
        for split, judged in qrels.items()
    }
    facts |= {
        "queries_without_text_left_out": len(without_text),
        "unknown_judgements_left_out": sum(count["left_out"] for count in unknown.values()),
    }
    write_judgements(folder, kept, {**facts, "unknown_judgements": unknown} if unknown else facts)


def _read_judgements(
    judgements: Mapping[str, Iterable[Judgement]],
) -> tuple[dict[str, dict[str, dict[str, int]]], dict[str, int]]:
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    facts: Counter[str] = Counter()
    for split, lines in judgements.items():
        qrels[split], changed = judgements_of(lines)
        facts.update(changed)
    return qrels, dict(facts)


def _write_documents(path: Path, records: Records, judged: Container[str]) -> dict[str, int]:
    kept = 0
    left_out = []
    with TableWriter(path, CORPUS) as table:
        for place, record in records:
            name, title, text = _id(place, record), text_of(place, record, "title", ""), text_of(place, record, "text")
            if not (title.strip() or text.strip()):
                if name not in judged:
                    left_out.append(name)
                    continue
                kept += 1
            table.add((name, title, text), place)
    if not table.rows:
        raise UserError(f"{records} has no documents")
    if left_out:
        path.with_name(LEFT_OUT).write_text(json.dumps(left_out))
    return {"documents_without_text_left_out": len(left_out), "judged_documents_without_text": kept}


def _write_queries(path: Path, records: Records) -> set[str]:
    """Write the queries and return the ids of those without text."""
    without_text = set()
    with TableWriter(path, TAGGED) as table:
        for place, record in records:
            name, text = _id(place, record), text_of(place, record, "text")
            if text.strip():
                table.add((name, text, str(record.get("source") or ""), ""), place)
            else:
                without_text.add(name)
    if not table.rows:
        raise UserError(f"{records} has no queries")
    return without_text


def _id(place: str, record: Mapping[str, object]) -> str:
    name = id_of(place, record, *ID_KEYS)
    if not name:
        raise UserError(f'{place}: the "_id" is empty; every record needs an id')
    return name


def _unique_ids(path: Path, records: Records) -> pa.ChunkedArray:
    """Return the ids of a table as an Arrow column, since a Python set of 10 million ids would take a gigabyte.

    Raises:
        UserError: an id is used twice; the message names both places.
    """
    with pa.memory_map(str(path)) as file:
        ids = pa.ipc.open_stream(file).read_all()["_id"]
    if pa.compute.count_distinct(ids).as_py() < len(ids):
        counted = ids.value_counts().flatten()
        twice = counted[0].filter(pa.compute.greater(counted[1], 1))[0].as_py()
        first, second, *_ = _places(records, twice)
        raise UserError(f'{second}: the id "{twice}" is already used in {first}; ids must be unique')
    return ids


def _places(records: Iterable[Record], name: str) -> list[str]:
    return [place for place, record in records if id_of(place, record, *ID_KEYS) == name]


def _missing(names: Iterable[str], ids: pa.ChunkedArray) -> set[str]:
    wanted = pa.array(names, pa.string())
    found = pa.compute.is_in(wanted, value_set=ids)
    return set(wanted.filter(pa.compute.invert(found)).to_pylist())


def _count_unknown(
    judgements: Mapping[str, Iterable[Judgement]], documents: set[str], queries: set[str], skip: bool
) -> dict[str, dict[str, int]]:
    """Return, for each split that has judgements with unknown ids, how many of how many are left out.

    Raises:
        UserError: they are not to be skipped.
    """
    read = {split: list(lines) for split, lines in judgements.items()}
    wrong = {
        split: [line for line in lines if line.document in documents or line.query in queries]
        for split, lines in read.items()
    }
    if not skip:
        every = [line for lines in wrong.values() for line in lines]
        place, query, document, _ = every[0]
        what = (
            f'the query "{query}" is not among the queries'
            if query in queries
            else f'the document "{document}" is not in the corpus'
        )
        more = f" ({len(every)} judgements have unknown ids)" if len(every) > 1 else ""
        raise UserError(f"{place}: {what}{more}; correct the ids, or skip such judgements with data.skip_unknown=true")
    return {split: {"left_out": len(lines), "of": len(read[split])} for split, lines in wrong.items() if lines}
