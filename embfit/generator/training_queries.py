"""Generated queries as a collection's training split, and as its dev and test splits if the data has none.

Whole documents are held out, so that no query of a synthetic dev or test split has a relevant document that training
saw. The choice depends only on the documents' texts: adding or removing a document does not move others to another
split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import pyarrow as pa

from embfit.data.judgements import merge_queries, relevant, remove_leaks, seen_queries, split_sizes
from embfit.data.tables import TAGGED
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery
from embfit.records import Collection, Qrels

MOST_HELD_OUT = 300  # documents of a synthetic split: enough to detect a difference of 0.01


def held_out_documents(
    documents: Sequence[SourceDocument], splits: Iterable[str], share: float, seed: int
) -> dict[str, set[int]]:
    """Draw documents for synthetic splits; return their rows by split, each document in one split at most.

    Documents with the same text as far as generators read it share a split, since they share their queries.

    Args:
        documents: the documents that queries are written about.
        splits: the splits without queries.
        share: the share of the documents that each split gets, at least one and at most `MOST_HELD_OUT`.
        seed: draws them.
    """
    drawn = sorted(documents, key=lambda document: hashlib.sha256(f"{seed} {document.digest}".encode()).digest())
    alike: dict[str, list[int]] = {}
    for document in drawn:
        alike.setdefault(document.text, []).append(document.row)
    groups = list(alike.values())
    size = min(MOST_HELD_OUT, max(1, round(share * len(drawn)))) if share else 0
    found = {}
    for split in splits:
        chosen, groups = groups[:size], groups[size:]
        found[split] = {row for rows in chosen for row in rows}
    return {split: rows for split, rows in found.items() if rows}


def without_documents(collection: Collection, judged: Qrels, rows: AbstractSet[int]) -> tuple[Qrels, int]:
    """Return judgements without some documents and their copies, and how many queries lost all relevant documents.

    Args:
        collection: has the documents.
        judged: the judgements.
        rows: the documents' rows.
    """
    copies, places = collection.document_copies, collection.document_rows
    removed = {int(copies[row]) for row in rows}
    left = {
        query: {name: grade for name, grade in grades.items() if int(copies[places[name]]) not in removed}
        for query, grades in judged.items()
    }
    kept = {query: grades for query, grades in left.items() if relevant(grades) or not relevant(judged[query])}
    return kept, len(judged) - len(kept)


def with_queries(
    collection: Collection,
    own: Mapping[str, Qrels],
    generated: Mapping[str, Sequence[GeneratedQuery]],
    writers: Mapping[str, str],
) -> Collection:
    """Return a collection with generated queries beside its own.

    Queries of the same text are merged, and training queries that another split has too are removed.

    Args:
        collection: has the documents.
        own: the judgements of its own queries to keep.
        generated: the queries by split.
        writers: split → the name of the generator of its queries.
    """
    judged: dict[str, Qrels] = {split: dict(grades) for split, grades in own.items()}
    for split, queries in generated.items():
        about: dict[str, dict[str, int]] = {}
        for query in queries:  # documents with the same text as far as it is read share their queries
            about.setdefault(query.id, {})[query.document.id] = 1
        judged[split] = {**judged.get(split, {}), **about}
    every = [query for queries in generated.values() for query in queries]
    kept = {query for grades in own.values() for query in grades}
    texts = dict(zip(collection.query_ids, collection.query_texts(), strict=True)) if kept else {}
    texts |= {query.id: query.text for query in every}
    names = {name for grades in judged.values() for found in grades.values() for name in found}
    contents = {name: int(collection.document_copies[collection.document_rows[name]]) for name in names}
    qrels, merged = merge_queries(judged, texts)
    qrels, leaks = remove_leaks(qrels, texts, contents)
    train = qrels.get("train", {})
    synthetic = {split: writers[split] for split in generated if split != "train" and split in qrels}
    facts: dict[str, Any] = {
        **collection.facts,
        **{name: value for split, grades in qrels.items() for name, value in split_sizes(split, grades).items()},
        **{
            f"{split}_queries_seen_in_train": seen_queries(train, grades, contents)
            for split, grades in qrels.items()
            if split != "train"
        },
        "generated_queries_merged": merged,
        "generated_queries_removed": leaks["leaked_queries_removed"] + leaks["dev_queries_removed"],
        "queries_from": {**(collection.facts.get("queries_from") or {}), **writers},
        "synthetic_splits": synthetic,
    }
    table = _all_queries(collection, kept, every)
    facts["queries"] = len(table)
    return replace(collection, queries=table, qrels=qrels, facts=facts)


def _all_queries(collection: Collection, kept: set[str], generated: Sequence[GeneratedQuery]) -> Any:
    """Return the table of the collection's kept queries and the generated ones."""
    from datasets import Dataset  # takes a second to import
    from datasets.table import InMemoryTable

    own = collection.query_ids
    nothing = [""] * len(own)
    sources = collection.query_sources or nothing
    tags = collection.queries["weight"] if "weight" in collection.queries.column_names else nothing
    rows = [row for row in zip(own, collection.query_texts(), sources, tags, strict=True) if row[0] in kept]
    new = {query.id: (query.id, query.text, query.style, "") for query in generated}
    columns = zip(*rows, *new.values(), strict=True) if rows or new else ([], [], [], [])
    arrays = [pa.array(list(values), pa.string()) for values in columns]
    return Dataset(InMemoryTable(pa.table(dict(zip(TAGGED, arrays, strict=True)))))
