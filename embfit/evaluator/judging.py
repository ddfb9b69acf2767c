"""From a ranking and a split's judgements to an `Evaluation`: one path for every kind of system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embfit.data.judgements import merge_queries, seen_queries, split_sizes, without_self
from embfit.data.qrels import read_qrels
from embfit.errors import UserError
from embfit.evaluator.metrics import answerable, mean, per_query
from embfit.nearest import nearest
from embfit.records import Collection, Evaluation, Qrels, Ranking


def judgements(collection: Collection, split: str, key: str | None = None) -> Qrels:
    """Return a split's judgements.

    Args:
        collection: has them.
        split: its name.
        key: of the configuration, where the name stands.

    Raises:
        UserError: there is no such split, or none of its queries has a relevant document.
    """
    place = f"{key}={split}: " if key else ""
    if split not in collection.qrels:
        raise UserError(f"{place}{collection.name} has no split {split!r}; {_instead(collection, split)}")
    qrels = collection.qrels[split]
    if not answerable(qrels):
        raise UserError(
            f"{place}{collection.name}: none of the {len(qrels)} queries of split {split!r} has a relevant document "
            "(grade 1 or more), so there is nothing to measure"
        )
    return qrels


def _instead(collection: Collection, split: str) -> str:
    """Say why there is no such split, where that is known, and which there are."""
    said = ""
    if split in str(collection.facts.get("not_held_out", "")).split(", "):
        queries = len(collection.qrels["train"])
        said = f"none of the {queries} training queries could be held out for it (data.{split}_share); "
    elif meant := nearest(split, collection.qrels):
        said = f"did you mean {meant!r}? "
    return f"{said}its splits: {', '.join(sorted(collection.qrels)) or 'none'}"


def query_rows(collection: Collection, split: str) -> list[int]:
    """Return the rows of a split's queries, ascending.

    Raises:
        UserError: there is no such split, or none of its queries has a relevant document.
    """
    return sorted(collection.query_rows[query] for query in judgements(collection, split))


def judged_by(collection: Collection, split: str, path: Path) -> Collection:
    """Return the collection with the judgements of a qrels file, BEIR's or TREC's, as one of its splits.

    Equal queries are merged, and a query's own document is left out, as loading does with the data's own judgements;
    what loading counted of the split is counted anew.

    Raises:
        UserError: the file cannot be read, is malformed, or names a query or document that the collection lacks.
    """
    qrels = read_qrels(path)
    for query, grades in qrels.items():
        if query not in collection.query_rows:
            raise UserError(f"{path}: {query!r} is no query of {collection.name}; judge its own queries")
        if strange := next((document for document in grades if document not in collection.document_rows), None):
            raise UserError(f"{path}: query {query!r} judges {strange!r}, which is no document of {collection.name}")
    rows = [collection.query_rows[query] for query in qrels]
    judged, merged = merge_queries({split: qrels}, dict(zip(qrels, collection.query_texts(rows), strict=True)))
    if collection.exclude_self:
        judged = without_self(judged)
    facts = {
        **collection.facts,
        **split_sizes(split, judged[split]),
        "qrels_file": str(path),
        "qrels_file_queries_merged": merged,
    }
    if "train" in collection.qrels and split != "train":
        train = collection.qrels["train"]
        copies, places = collection.document_copies, collection.document_rows
        names = {name for found in (train, judged[split]) for grades in found.values() for name in grades}
        contents = {name: int(copies[places[name]]) for name in names}
        facts[f"{split}_queries_seen_in_train"] = seen_queries(train, judged[split], contents)
    return replace(collection, qrels={**collection.qrels, **judged}, facts=facts)


def judge(
    system: str,
    collection: Collection,
    split: str,
    ranking: Ranking,
    metrics: Sequence[str],
    facts: Mapping[str, Any] | None = None,
    subsets: Mapping[str, Sequence[str]] | None = None,
) -> Evaluation:
    """Measure a system's ranking of one split's queries.

    Args:
        system: its name in reports.
        collection: has the judgements.
        split: which of them.
        ranking: of the split's queries; a query that it lacks counts as 0.
        metrics: names, such as `ndcg@10`.
        facts: what else is known of the system (seconds); `queries` and `left_out` are added.
        subsets: parts of the queries to be looked at by themselves.

    Raises:
        UserError: there is no such split, or none of its queries has a relevant document.
    """
    qrels = judgements(collection, split)
    values = per_query(ranking, qrels, metrics)
    queries = len(answerable(qrels))
    return Evaluation(
        system=system,
        split=split,
        metrics={metric: mean(by_query.values()) for metric, by_query in values.items()},
        per_query=values,
        subsets=subsets or {},
        ranking=ranking,
        facts={"queries": queries, "left_out": len(qrels) - queries, **(facts or {})},
    )
