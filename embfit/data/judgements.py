"""What happens to the judgements of a collection before anyone uses them, as functions of plain mappings.

`texts` maps a query's id to its text and `contents` a judged document's id to a digest of its text, so that equal
documents with different ids count as one. The functions return new judgements and what they counted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Mapping

from embfit.records import Qrels


def normalise(query: str) -> str:
    """Return a query's text without the differences that change nothing: case, width, blanks, the final mark."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split()).rstrip(" .?!")


def relevant(documents: Mapping[str, int]) -> list[str]:
    """The documents with a grade of 1 or more."""
    return [document for document, grade in documents.items() if grade > 0]


def merge_queries(qrels: Mapping[str, Qrels], texts: Mapping[str, str]) -> tuple[dict[str, Qrels], int]:
    """Within each split, make queries of identical text one: the first, with the judgements of all.

    Where they judge a document differently, the higher grade counts.

    Returns:
        The judgements, and how many queries were merged into others.
    """
    merged: dict[str, Qrels] = {}
    for split, judged in qrels.items():
        first: dict[str, str] = {}
        kept: dict[str, dict[str, int]] = {}
        for query, documents in judged.items():
            into = kept.setdefault(first.setdefault(texts[query], query), {})
            for document, grade in documents.items():
                into[document] = max(grade, into.get(document, 0))
        merged[split] = kept
    return merged, sum(map(len, qrels.values())) - sum(map(len, merged.values()))


def remove_leaks(
    qrels: Mapping[str, Qrels], texts: Mapping[str, str], contents: Mapping[str, Hashable]
) -> tuple[dict[str, Qrels], dict[str, int]]:
    """Take the training queries out whose normalised text is a query of any other split, too.

    Returns:
        The judgements, and two counts: `leaked_queries_removed`, and `leaked_pairs_removed` (how many of their
        relevant pairs an evaluation split has, too).
    """
    if "train" not in qrels:
        return dict(qrels), {"leaked_queries_removed": 0, "leaked_pairs_removed": 0}
    evaluated: dict[str, set[Hashable]] = {}
    for split, judged in qrels.items():
        for query, documents in judged.items() if split != "train" else ():
            known = evaluated.setdefault(normalise(texts[query]), set())
            known.update(contents[document] for document in relevant(documents))
    kept: dict[str, Mapping[str, int]] = {}
    pairs = 0
    for query, documents in qrels["train"].items():
        text = normalise(texts[query])
        if text in evaluated:
            pairs += sum(contents[document] in evaluated[text] for document in relevant(documents))
        else:
            kept[query] = documents
    removed = len(qrels["train"]) - len(kept)
    return {**qrels, "train": kept}, {"leaked_queries_removed": removed, "leaked_pairs_removed": pairs}


def seen_queries(train: Qrels, judged: Qrels, contents: Mapping[str, Hashable]) -> int:
    """Count the queries of an evaluation split with a relevant document that is relevant in training, too."""
    seen = {contents[document] for documents in train.values() for document in relevant(documents)}
    return sum(any(contents[name] in seen for name in relevant(documents)) for documents in judged.values())
