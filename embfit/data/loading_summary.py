"""What loading a collection read, merged and left out, in one line for each reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from embfit.data.tables import SourceSplit
from embfit.errors import UserError
from embfit.records import Collection

MANY = 0.1  # share of the training queries, or of a split's judgements, from which leaving them out is a warning

LINES: Mapping[str, str] = {
    "rows_without_text_left_out": "rows without a query or without a positive left out: {}",
    "documents_without_text_left_out": "documents without text left out: {}",
    "judged_documents_without_text": "judged documents without text, which stay in the corpus: {}",
    "queries_without_text_left_out": "queries without text left out: {}",
    "repeated_judgements": "judgements made twice, which count once with the higher grade: {}",
    "grades_below_zero": "grades below zero, which count as 0: {}",
    "queries_merged": "queries merged into one of the same text: {}",
    "train_queries_left_out": "training queries left out by data.max_train: {}",
    "dev_queries_removed": "dev queries removed because another evaluation split has them too: {}",
}
"""Facts of loading that are counts, with what is said of one that is not 0."""


class Line(NamedTuple):
    """Something that loading did, and whether it deserves a warning."""

    text: str
    warns: bool = False


def loading_summary(collection: Collection, splits: Mapping[str, SourceSplit]) -> Iterator[Line]:
    """Yield one line for each thing that was read, merged or left out.

    Args:
        collection: the collection, with the facts of its loading.
        splits: the splits that the source lets be chosen.
    """
    facts, splits_read = collection.facts, collection.qrels
    sizes = ", ".join(f"{one} {facts[f'{one}_queries']:,} ({facts[f'{one}_pairs']:,})" for one in splits_read)
    yield Line(f"{collection.name}: {facts['documents']:,} documents; queries (pairs) {sizes}")
    if "rows" in facts:
        texts = f"{facts['queries']:,} queries and {facts['documents']:,} documents"
        yield Line(f"rows read: {facts['rows']:,}, with {texts} that differ")
    for fact, said in LINES.items():
        if facts.get(fact):
            yield Line(said.format(f"{facts[fact]:,}"))
    for split, count in facts.get("unknown_judgements", {}).items():
        yield _unknown(split, count["left_out"], count["of"])
    if facts.get("leaked_queries_removed"):
        yield _leaked(facts, splits)
    for split in splits_read:
        if seen := facts.get(f"{split}_queries_seen_in_train"):
            yield Line(f"{split} queries with a document seen in training: {seen:,} of {facts[f'{split}_queries']:,}")


def refuse_empty_training(queries: int, facts: Mapping[str, Any], splits: Mapping[str, SourceSplit]) -> None:
    """Refuse evaluation splits that have every training query.

    Args:
        queries: the number of training queries before those of other splits were removed.
        facts: what removing them counted.
        splits: the splits that the source lets be chosen.

    Raises:
        UserError: no training query is left.
    """
    if queries and facts["leaked_queries_removed"] == queries:
        split, _ = _largest(facts)
        raise UserError(f"all {queries:,} training queries are also in split {split}; {_remedy(split, splits)}")


def _unknown(split: str, left_out: int, read: int) -> Line:
    return Line(
        f"{split}: {left_out:,} of {read:,} judgements ({left_out / read:.0%}) name documents or queries that the data "
        "lacks and are left out, so results on this split are better than they would be with them "
        "(data.skip_unknown=false stops at the first)",
        warns=left_out >= MANY * read,
    )


def _leaked(facts: Mapping[str, Any], splits: Mapping[str, SourceSplit]) -> Line:
    removed, (split, shared) = facts["leaked_queries_removed"], _largest(facts)
    before = facts["training_queries_before_removal"]
    if removed < MANY * before:
        return Line(f"training queries removed because they are evaluation queries too: {removed:,}")
    return Line(
        f"{shared:,} of {before:,} training queries are also in split {split}{_place(split, splits)} and are not "
        f"trained on; if it is not for evaluation, {_remedy(split, splits)}",
        warns=True,
    )


def _largest(facts: Mapping[str, Any]) -> tuple[str, int]:
    """Return the split that has most of the training queries, one of no usual name if several do, and how many."""
    shared: Mapping[str, int] = facts["training_queries_also_in"]
    split = max(shared, key=lambda split: (shared[split], split not in ("dev", "test")))
    return split, shared[split]


def _place(split: str, splits: Mapping[str, SourceSplit]) -> str:
    return f" ({splits[split].place})" if split in splits else ""


def _remedy(split: str, splits: Mapping[str, SourceSplit]) -> str:
    if split not in splits:
        return "leave it out of data.path"
    order = {name: place for place, name in enumerate(("train", "dev", "test"))}
    meant = sorted((name for name in splits if name != split), key=lambda name: order.get(name, len(order)))
    return f"name the splits you mean: data.splits=[{','.join(splits[name].name for name in meant)}]"
