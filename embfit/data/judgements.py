"""Cleaning the judgements of a collection before anyone uses them, as functions of plain mappings.

`texts` maps a query's id to its text. `contents` maps a judged document's id to a digest of its text, so that equal
documents with different ids count as one. The functions return new judgements and counts of what they changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from embfit.records import Qrels
from embfit.text_digests import normalise


def relevant(documents: Mapping[str, int]) -> list[str]:
    """Return the documents with a grade of 1 or more."""
    return [document for document, grade in documents.items() if grade > 0]


def merge_queries(qrels: Mapping[str, Qrels], texts: Mapping[str, str]) -> tuple[dict[str, Qrels], int]:
    """Merge the queries of each split that have the same normalised text into the first of them, with all judgements.

    If they stayed apart, each query's relevant documents would count as wrong for the other: as its hardest negatives
    in training, as errors in evaluation. Where they judge a document differently, the higher grade counts.

    Returns:
        The judgements, and how many queries were merged into others.
    """
    merged: dict[str, Qrels] = {}
    for split, judged in qrels.items():
        first: dict[str, str] = {}
        kept: dict[str, dict[str, int]] = {}
        for query, documents in judged.items():
            into = kept.setdefault(first.setdefault(normalise(texts[query]), query), {})
            for document, grade in documents.items():
                into[document] = max(grade, into.get(document, 0))
        merged[split] = kept
    return merged, sum(map(len, qrels.values())) - sum(map(len, merged.values()))


def without_self(qrels: Mapping[str, Qrels]) -> dict[str, Qrels]:
    """Remove each query's judgement of the document with its own id, and queries that have no other judgement.

    Merging queries brings such judgements about: each of the merged queries was relevant to the other.
    """
    others = {
        split: {
            query: {document: grade for document, grade in documents.items() if document != query}
            for query, documents in judged.items()
        }
        for split, judged in qrels.items()
    }
    return {split: {query: found for query, found in judged.items() if found} for split, judged in others.items()}


def remove_leaks(
    qrels: Mapping[str, Qrels], texts: Mapping[str, str], contents: Mapping[str, Hashable]
) -> tuple[dict[str, Qrels], dict[str, Any]]:
    """Remove the queries of every other split from training, and those of the remaining evaluation splits from dev.

    Two queries are the same if their normalised texts are. Dev is cleaned too because it chooses the weights that the
    other splits report on. A dev split that becomes empty is dropped.

    Returns:
        The judgements, and three counts: `leaked_queries_removed`, `leaked_pairs_removed` (how many relevant pairs of
        the removed queries an evaluation split has, too) and `dev_queries_removed`. Where training queries were
        removed, `training_queries_also_in` says by evaluation split how many it has.
    """
    counts: dict[str, Any] = {"leaked_queries_removed": 0, "leaked_pairs_removed": 0, "dev_queries_removed": 0}
    cleaned = dict(qrels)
    if "train" in qrels:
        others = {split: judged for split, judged in qrels.items() if split != "train"}
        cleaned["train"], counts["leaked_pairs_removed"] = _not_asked(qrels["train"], others.values(), texts, contents)
        counts["leaked_queries_removed"] = len(qrels["train"]) - len(cleaned["train"])
        if counts["leaked_queries_removed"]:
            counts["training_queries_also_in"] = _shared_queries(qrels["train"], others, texts)
    if "dev" in qrels:
        others = {split: judged for split, judged in qrels.items() if split not in ("train", "dev")}
        cleaned["dev"], _ = _not_asked(qrels["dev"], others.values(), texts, contents)
        counts["dev_queries_removed"] = len(qrels["dev"]) - len(cleaned["dev"])
    return {split: judged for split, judged in cleaned.items() if judged or split != "dev"}, counts


def _shared_queries(train: Qrels, others: Mapping[str, Qrels], texts: Mapping[str, str]) -> dict[str, int]:
    """Count the training queries that each evaluation split has, too; splits that have none are left out."""
    trained = {normalise(texts[query]) for query in train}
    shared = {split: len(trained & {normalise(texts[query]) for query in judged}) for split, judged in others.items()}
    return {split: count for split, count in shared.items() if count}


def _not_asked(
    judged: Qrels, others: Iterable[Qrels], texts: Mapping[str, str], contents: Mapping[str, Hashable]
) -> tuple[Qrels, int]:
    """Return the queries that no other split has, and how many relevant pairs of the other queries they share."""
    asked: dict[str, set[Hashable]] = {}
    for other in others:
        for query, documents in other.items():
            found = asked.setdefault(normalise(texts[query]), set())
            found.update(contents[document] for document in relevant(documents))
    kept: dict[str, Mapping[str, int]] = {}
    pairs = 0
    for query, documents in judged.items():
        text = normalise(texts[query])
        if text in asked:
            pairs += sum(contents[document] in asked[text] for document in relevant(documents))
        else:
            kept[query] = documents
    return kept, pairs


def seen_queries(train: Qrels, judged: Qrels, contents: Mapping[str, Hashable]) -> int:
    """Count the queries of an evaluation split with a relevant document that is relevant to a training query, too."""
    seen = {contents[document] for documents in train.values() for document in relevant(documents)}
    return sum(any(contents[name] in seen for name in relevant(documents)) for documents in judged.values())


def split_sizes(split: str, judged: Qrels) -> dict[str, int]:
    """Count the queries of a split, and how many of its judgements call a document relevant or not relevant."""
    pairs = sum(len(relevant(documents)) for documents in judged.values())
    return {
        f"{split}_queries": len(judged),
        f"{split}_pairs": pairs,
        f"{split}_not_relevant": sum(map(len, judged.values())) - pairs,
    }
