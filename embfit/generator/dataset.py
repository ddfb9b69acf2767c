"""Write generated queries as a data set: a folder in the BEIR layout, and a table of all queries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embfit.atomic_files import replacing, replacing_folder
from embfit.generator.filter_marks import Marks
from embfit.generator.protocol import GeneratedQuery
from embfit.records import Collection, Qrels

COLUMNS = pa.schema(
    {
        "_id": pa.string(), "text": pa.string(), "document_id": pa.string(), "document_digest": pa.string(),
        "style": pa.string(), "generator": pa.string(), "model": pa.string(), "language": pa.string(),
        "temperature": pa.float32(), "request_id": pa.string(), "seed": pa.int64(), "rank_dense": pa.int32(),
        "rank_bm25": pa.int32(), "rank_cross_encoder": pa.int32(), "grade": pa.int32(),
        "log_probability": pa.float32(), "copied_words": pa.int32(), "dropped_by": pa.string(),
        "review": pa.string(), "positive": pa.string(),
    }
)  # fmt: skip
QUERIES, HELD_OUT = "queries.parquet", "queries-held-out.parquet"
"""Files of a run folder: the queries, and separately those that another generator wrote about held-out documents."""
HEADER = "query-id\tcorpus-id\tscore\n"
BLOCK = 4096


def write_queries(
    path: Path,
    queries: Sequence[GeneratedQuery],
    marks: Marks,
    generator: str,
    answers: Mapping[str, str] | None = None,
) -> None:
    """Write every query, kept or dropped, with its provenance, its document and the results of the filters.

    Args:
        path: the Parquet file.
        queries: the generated queries.
        marks: the results of the filters.
        generator: the generator's name.
        answers: query id → a reviewer's decision.
    """
    with replacing(path) as temporary, pq.ParquetWriter(temporary, COLUMNS) as writer:
        for block in _blocks(_rows(queries, marks, generator, answers or {})):
            writer.write_table(pa.Table.from_pylist(block, schema=COLUMNS))


def write_dataset(
    folder: Path,
    collection: Collection,
    queries: Sequence[GeneratedQuery],
    splits: Mapping[str, Qrels],
    instead: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Write a folder in the BEIR layout, atomically.

    Args:
        folder: the folder, with `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.
        collection: has the documents and its own queries.
        queries: the generated queries for training, each with its document as the relevant one.
        splits: judgements of the collection's own queries to write as well.
        instead: by query id, the id and text of a document that replaces the query's own, and is added to the corpus.
    """
    instead = instead or {}
    own = {query for judged in splits.values() for query in judged}
    with replacing_folder(folder) as unfinished:
        (unfinished / "qrels").mkdir()
        _write_lines(unfinished / "corpus.jsonl", _all_documents(collection, instead.values()))
        _write_lines(unfinished / "queries.jsonl", _all_queries(collection, own, queries))
        train = dict(splits.get("train", {}))
        lines: dict[str, dict[str, int]] = {query: dict(judged) for query, judged in train.items()}
        for query in queries:
            document, _ = instead.get(query.id, (query.document.id, ""))
            lines.setdefault(query.id, {})[document] = 1
        for split, judged in {**splits, "train": lines}.items():
            with (unfinished / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as file:
                file.write(HEADER)
                for name, grades in judged.items():
                    file.writelines(f"{name}\t{document}\t{grade}\n" for document, grade in grades.items())


def evaluation_splits(
    collection: Collection, example_queries: AbstractSet[str], labels: bool
) -> tuple[dict[str, Qrels], int]:
    """Return the collection's own judgements to write beside generated queries, and how many queries were removed.

    Args:
        collection: has the judgements.
        example_queries: ids of the queries that were shown to a model; they are removed from evaluation splits.
        labels: whether to keep the training split, too.
    """
    kept: dict[str, Qrels] = {}
    left_out = 0
    for split, judged in collection.qrels.items():
        if split == "train" and not labels:
            continue
        kept[split] = {
            query: grades for query, grades in judged.items() if split == "train" or query not in example_queries
        }
        left_out += len(judged) - len(kept[split])
    return {split: judged for split, judged in kept.items() if judged}, left_out


def _all_documents(collection: Collection, added: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    for block in collection.corpus.select_columns(["_id", "title", "text"]).iter(BLOCK):
        for values in zip(*block.values(), strict=True):
            yield dict(zip(block, values, strict=True))
    for name, text in added:
        yield {"_id": name, "title": "", "text": text}


def _all_queries(
    collection: Collection, own: AbstractSet[str], queries: Sequence[GeneratedQuery]
) -> Iterator[dict[str, str]]:
    sources = collection.query_sources or [""] * len(collection.queries)
    for name, text, source in zip(collection.query_ids, collection.query_texts(), sources, strict=True):
        if name in own:
            yield {"_id": name, "text": text, **({"source": source} if source else {})}
    for query in {query.id: query for query in queries}.values():
        yield {"_id": query.id, "text": query.text, "source": query.style}


def _rows(
    queries: Sequence[GeneratedQuery], marks: Marks, generator: str, answers: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    nothing = [None] * len(queries)
    for place, query in enumerate(queries):
        yield {
            **dict.fromkeys(COLUMNS.names),
            "_id": query.id,
            "text": query.text,
            "document_id": query.document.id,
            "document_digest": query.document.digest,
            "style": query.style,
            "generator": generator,
            "request_id": query.request or None,
            **{f"rank_{name}": marks.ranks.get(name, nothing)[place] for name in ("dense", "bm25", "cross_encoder")},
            "grade": (marks.grades or nothing)[place],
            "copied_words": marks.runs[place],
            "dropped_by": marks.dropped_by[place],
            "review": answers.get(query.id),
            **query.provenance,
        }


def _write_lines(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _blocks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while block := list(islice(rows, BLOCK)):
        yield block
