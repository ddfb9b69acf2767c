"""Evaluation queries grouped by what training saw, since a gain may come from memorised documents.

On scifact, a first experiment rose from 0.645 to 0.751 nDCG@10 over all test queries, but only from 0.676 to 0.677 over
the 104 queries whose documents training had not seen.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from embfit.atomic_files import write_text
from embfit.data.similarity import shingles, similar_to, words
from embfit.evaluator.metrics import answerable
from embfit.records import Collection, Qrels
from embfit.store import Store

log = logging.getLogger(__name__)

TRAIN = "train"
VERSION = 1  # of the stored groups


def by_training(collection: Collection, split: str, near: float | None, store: Store) -> dict[str, list[str]]:
    """Group a split's answerable queries into `unseen`, `near-copy` and `seen`.

    A query is seen when a document relevant to it, or one of exactly the same text, is relevant to a training query
    too; a near-copy when that holds for a document of nearly the same text, or when its own words are nearly those of a
    training query; unseen when training saw nothing like it.

    Args:
        collection: has the judgements.
        split: whose queries are grouped.
        near: Jaccard similarity from which texts are near-copies: of their sequences of four words for documents, of
            their words for queries. None finds exact copies only, and there are no near-copies.
        store: keeps the groups.

    Returns:
        Subset name → query ids, without empty subsets; empty if one subset has all queries.
    """
    if TRAIN not in collection.qrels or split == TRAIN:
        return {}
    key = {
        "near": near,
        "corpus": collection.corpus_digest,
        "queries": collection.queries_digest,
        "judgements": [collection.qrels_digest(split), collection.qrels_digest(TRAIN)],
    }

    def build(folder: Path) -> None:
        write_text(folder / "parts.json", json.dumps(_parts(collection, split, near)))

    parts = json.loads((store.entry("parts", key, build, version=VERSION) / "parts.json").read_text(encoding="utf-8"))
    found = {name: queries for name, queries in parts.items() if queries}
    return found if len(found) > 1 else {}


def seen_by_training(collection: Collection, split: str) -> set[str]:
    """Return the split's answerable queries with a relevant document that is also relevant to a training query.

    Documents of exactly the same text count as one. Without training data no query is seen.
    """
    if TRAIN not in collection.qrels or split == TRAIN:
        return set()
    trained = _trained(collection)
    gold = _gold(collection, answerable(collection.qrels[split]))
    return {query for query, rows in gold.items() if rows & trained}


def _trained(collection: Collection) -> set[int]:
    """Return the rows of documents relevant to a training query, one row for all copies of a text."""
    return {copy for rows in _gold(collection, collection.qrels[TRAIN]).values() for copy in rows}


def _parts(collection: Collection, split: str, near: float | None) -> dict[str, list[str]]:
    trained = _trained(collection)
    gold = _gold(collection, answerable(collection.qrels[split]))
    parts: dict[str, list[str]] = {"unseen": [], "near-copy": [], "seen": []}
    near_documents = _near_documents(collection, gold, trained, near) if near is not None else set()
    near_queries = _near_queries(collection, gold, near) if near is not None else set()
    for query, rows in gold.items():
        if rows & trained:
            parts["seen"].append(query)
        elif rows & near_documents or query in near_queries:
            parts["near-copy"].append(query)
        else:
            parts["unseen"].append(query)
    return parts


def _gold(collection: Collection, qrels: Qrels) -> dict[str, set[int]]:
    """Return the rows of each query's relevant documents, one row for all copies of a text."""
    copies, rows = collection.document_copies, collection.document_rows
    return {
        query: {int(copies[rows[document]]) for document, grade in grades.items() if grade >= 1}
        for query, grades in qrels.items()
    }


def _near_documents(collection: Collection, gold: Mapping[str, set[int]], trained: set[int], near: float) -> set[int]:
    """Return the rows of the split's relevant documents that are near-copies of a trained one."""
    rows = sorted({row for some in gold.values() for row in some} - trained)
    others = map(shingles, collection.document_texts(sorted(trained)))
    found = similar_to([shingles(text) for text in collection.document_texts(rows)], others, near)
    return {rows[place] for place in found}


def _near_queries(collection: Collection, gold: Mapping[str, set[int]], near: float) -> set[str]:
    """Return the split's queries that are near-copies of a training query."""
    names = list(gold)
    places = collection.query_rows
    others = map(words, collection.query_texts([places[query] for query in collection.qrels[TRAIN]]))
    found = similar_to(
        [words(text) for text in collection.query_texts([places[query] for query in names])], others, near
    )
    return {names[place] for place in found}
