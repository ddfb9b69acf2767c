"""How many of a miner's negatives are relevant, estimated from judgements that the miner does not see.

Some positives of each training query with several are hidden, and the miner runs with the remaining ones. If it mines a
hidden positive as a negative, it would also have done so had nobody judged that document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from embfit.miner.examples import SPLIT
from embfit.random_streams import random_stream
from embfit.records import Collection, TrainingSet


@dataclass(frozen=True)
class FalseNegatives:
    """What became of the hidden positives.

    Args:
        queries: the number of queries with several positives of different text.
        hidden: the number of hidden positives.
        taken: the number of hidden positives that became negatives.
        mined: the number of all negatives mined for these queries.
    """

    queries: int
    hidden: int
    taken: int
    mined: int

    @property
    def facts(self) -> dict[str, Any]:
        """The counts and both shares; a share is None if it would divide by zero."""
        return {
            **asdict(self),
            "share_of_hidden": self.taken / self.hidden if self.hidden else None,
            "share_of_mined": self.taken / self.mined if self.mined else None,
        }


def estimate(
    mine: Callable[[Collection], TrainingSet], collection: Collection, share: float, seed: int
) -> FalseNegatives:
    """Hide positives, mine, and count those that come back as negatives.

    Args:
        mine: mines a collection and returns the training set.
        collection: the collection with the training split.
        share: the share of each query's positives to hide; at least one is hidden and at least one is kept.
        seed: seeds the choice of hidden positives.
    """
    left, hidden = hide(collection, share, seed)
    if not hidden:
        return FalseNegatives(0, 0, 0, 0)
    found = mine(replace(collection, qrels={SPLIT: left}))
    copies = collection.document_copies
    texts = {
        collection.query_rows[query]: {int(copies[collection.document_rows[document]]) for document in documents}
        for query, documents in hidden.items()
    }
    rows = zip(found.rows["query"][:], found.rows["negatives"][:], strict=True)
    taken = sum(int(copies[row]) in texts[query] for query, negatives in rows for row in negatives)
    return FalseNegatives(len(hidden), sum(map(len, texts.values())), taken, int(found.facts["mined"]))


def hide(
    collection: Collection, share: float, seed: int
) -> tuple[dict[str, dict[str, int]], Mapping[str, frozenset[str]]]:
    """Hide positives of the training queries that have several of different text.

    Returns:
        The remaining judgements of these queries, and the hidden positives by query. A positive is hidden together with
        its copies.
    """
    copies, rows = collection.document_copies, collection.document_rows
    random = random_stream("hidden positives", seed)
    left: dict[str, dict[str, int]] = {}
    hidden: dict[str, frozenset[str]] = {}
    for query, grades in sorted(collection.qrels.get(SPLIT, {}).items()):
        by_text: dict[int, list[str]] = {}
        for document in sorted(name for name, grade in grades.items() if grade >= 1):
            by_text.setdefault(int(copies[rows[document]]), []).append(document)
        if len(by_text) < 2:
            continue
        count = min(max(1, round(share * len(by_text))), len(by_text) - 1)
        chosen = random.choice(list(by_text), count, replace=False).tolist()
        hidden[query] = frozenset(document for text in chosen for document in by_text[text])
        left[query] = {document: grade for document, grade in grades.items() if document not in hidden[query]}
    return left, hidden
