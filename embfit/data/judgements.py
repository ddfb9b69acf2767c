"""What happens to the judgements of a collection before anyone uses them, as functions of plain mappings.

`texts` maps a query's id to its text and `contents` a judged document's id to a digest of its text, so that equal
documents with different ids count as one. The functions return new judgements and what they counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from embfit.records import Qrels
from embfit.text_digests import normalise


def relevant(documents: Mapping[str, int]) -> list[str]:
    """The documents with a grade of 1 or more."""
    return [document for document, grade in documents.items() if grade > 0]


def merge_queries(qrels: Mapping[str, Qrels], texts: Mapping[str, str]) -> tuple[dict[str, Qrels], int]:
    """Within each split, make queries of the same normalised text one: the first, with the judgements of all.

    Apart, each would take the other's relevant documents for wrong: in training as its hardest negatives, in evaluation
    as errors. Where they judge a document differently, the higher grade counts.

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
    """Leave out the judgements of documents for the query of their own id, and queries that have no others.

    Queries that were merged into one bring them along: each was relevant to the other.
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
) -> tuple[dict[str, Qrels], dict[str, int]]:
    """Take out of training the queries of any other split, and out of dev those of any but training.

    Queries are the same when their normalised texts are. Dev chooses the weights that the others report on. A dev split
    with nothing left is none.

    Returns:
        The judgements, and three counts: `leaked_queries_removed`, `leaked_pairs_removed` (how many of their relevant
        pairs an evaluation split has, too) and `dev_queries_removed`.
    """
    counts = {"leaked_queries_removed": 0, "leaked_pairs_removed": 0, "dev_queries_removed": 0}
    cleaned = dict(qrels)
    if "train" in qrels:
        others = [judged for split, judged in qrels.items() if split != "train"]
        cleaned["train"], counts["leaked_pairs_removed"] = _not_asked(qrels["train"], others, texts, contents)
        counts["leaked_queries_removed"] = len(qrels["train"]) - len(cleaned["train"])
    if "dev" in qrels:
        others = [judged for split, judged in qrels.items() if split not in ("train", "dev")]
        cleaned["dev"], _ = _not_asked(qrels["dev"], others, texts, contents)
        counts["dev_queries_removed"] = len(qrels["dev"]) - len(cleaned["dev"])
    return {split: judged for split, judged in cleaned.items() if judged or split != "dev"}, counts


def _not_asked(
    judged: Qrels, others: Iterable[Qrels], texts: Mapping[str, str], contents: Mapping[str, Hashable]
) -> tuple[Qrels, int]:
    """Return the queries that no other split has, and how many relevant pairs of the rest another one has, too."""
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
    """Count the queries of an evaluation split with a relevant document that is relevant in training, too."""
    seen = {contents[document] for documents in train.values() for document in relevant(documents)}
    return sum(any(contents[name] in seen for name in relevant(documents)) for documents in judged.values())


def split_sizes(split: str, judged: Qrels) -> dict[str, int]:
    """Count the queries of a split, and how many judgements of them are relevant or not."""
    pairs = sum(len(relevant(documents)) for documents in judged.values())
    return {
        f"{split}_queries": len(judged),
        f"{split}_pairs": pairs,
        f"{split}_not_relevant": sum(map(len, judged.values())) - pairs,
    }
