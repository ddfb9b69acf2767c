"""How rankings are judged: `judge` turns the ranking of any kind of system into an `Evaluation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embfit.data.judgements import merge_queries, seen_queries, split_sizes, without_self
from embfit.data.qrels import read_qrels
from embfit.errors import UserError
from embfit.evaluator.metrics import answerable, mean, per_query
from embfit.index.compressed import Format
from embfit.index.language import LanguageChoice
from embfit.records import Collection, Evaluation, Qrels, Ranking
from embfit.suggestions import nearest


@dataclass(frozen=True)
class FunnelSettings:
    """Which smaller vectors and shortlists are measured.

    Args:
        shortlists: how many documents whole vectors rerank.
        formats: how the vectors that are searched are stored.
        quality_kept: the share of the quality of whole vectors that the cheapest setting must keep.
    """

    shortlists: Sequence[int]
    formats: Sequence[Format]
    quality_kept: float


@dataclass(frozen=True)
class Judging:
    """The settings by which every system is judged, whatever its kind.

    Args:
        metrics: names such as `ndcg@10`; the first is the headline.
        splits: names of the splits that are reported: the evaluator's own, and production where there is one.
        dev_split: the split that training validates on, and that fusion weights are tuned on.
        dev_documents: how many documents a validation searches; None searches all.
        depth: how many documents are ranked for each query.
        dims: dimensions that vectors are also cut to; None measures whole vectors only.
        funnel: which smaller vectors and shortlists are measured; None measures none.
        bm25: whether BM25 is reported beside a model.
        language: chooses BM25's stemmer and stop words; auto is the documents' language, None uses neither.
        near_copy: the similarity from which a text counts as a near-copy of one that training saw; None finds exact
            copies only.
        seed: seeds all random draws.
    """

    metrics: Sequence[str]
    splits: Sequence[str] = ("test",)
    dev_split: str = "dev"
    dev_documents: int | None = None
    depth: int = 100
    dims: Sequence[int] | None = None
    funnel: FunnelSettings | None = None
    bm25: bool = True
    language: LanguageChoice = "auto"
    near_copy: float | None = None
    seed: int = 0


def judgements(collection: Collection, split: str, key: str | None = None) -> Qrels:
    """Return a split's judgements.

    Args:
        collection: the collection that has them.
        split: the split's name.
        key: the configuration key that names the split, for the error message.

    Raises:
        UserError: there is no such split, or none of its queries has a relevant document.
    """
    place = f"{key}={split}: " if key else ""
    if not collection.qrels:
        raise UserError(
            f"{collection.name} has documents and no queries, so there is nothing to measure or to train on; "
            "generator=extractive writes queries for a fine-tuning, data=pairs data.path=FILE data.corpus=DIR adds "
            "your own, and task=assess, task=index and task=search need none"
        )
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
    """Say why the split is missing, if that is known, and which splits exist."""
    reason = ""
    if split in str(collection.facts.get("not_held_out", "")).split(", "):
        queries = len(collection.qrels["train"])
        if answerable(collection.qrels["train"]):
            reason = f"none of the {queries} training queries could be held out for it (data.{split}_share); "
        else:
            reason = f"none of the {queries} training queries has a relevant document (grade 1 or more) to hold out; "
    elif meant := nearest(split, collection.qrels):
        reason = f"did you mean {meant!r}? "
    return f"{reason}its splits: {', '.join(sorted(collection.qrels)) or 'none'}"


def query_rows(collection: Collection, split: str) -> list[int]:
    """Return the rows of a split's queries, ascending.

    Raises:
        UserError: there is no such split, or none of its queries has a relevant document.
    """
    return sorted(collection.query_rows[query] for query in judgements(collection, split))


def judged_by(collection: Collection, split: str, path: Path) -> Collection:
    """Return the collection with the judgements of a qrels file, BEIR's or TREC's, as one of its splits.

    The judgements are treated as in loading: queries of equal text are merged, a query's own document is left out, and
    the split's counts are updated.

    Raises:
        UserError: the file cannot be read, is malformed, or names a query or document that the collection lacks.
    """
    qrels = read_qrels(path)
    for query, grades in qrels.items():
        if query not in collection.query_rows:
            raise UserError(f"{path}: {query!r} is not a query of {collection.name}; judge its own queries")
        if strange := next((document for document in grades if document not in collection.document_rows), None):
            raise UserError(f"{path}: query {query!r} judges {strange!r}, which is not a document of {collection.name}")
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
        system: the system's name in reports.
        collection: the collection that has the judgements.
        split: the split whose judgements count.
        ranking: ranks documents for the split's queries; a missing query scores 0.
        metrics: names such as `ndcg@10`.
        facts: further facts about the system, such as seconds; `queries` and `left_out` are added.
        subsets: groups of queries that are also compared by themselves.

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
        facts={"queries": queries, "left_out": len(qrels) - queries, **_unanswered(ranking, qrels), **(facts or {})},
    )


def _unanswered(ranking: Ranking, qrels: Qrels) -> dict[str, int]:
    """Count the queries for which nothing was found; empty if there are none."""
    count = sum(not ranking.documents.get(query) for query in answerable(qrels))
    return {"queries_without_result": count} if count else {}
