"""What the training split says: the queries to mine for, their positives, and the negatives that its judges named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute

from embfit.errors import UserError
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.text_digests import digest_text

SPLIT = "train"  # no other split is ever read here: mining around its judgements would leak them into training
BLOCK = 16_384  # queries mined at once: bounds the memory of their candidates


@dataclass(frozen=True)
class TrainingQueries:
    """Training queries with what is known about them, in the order of query rows.

    Args:
        queries: [Q] int32, rows of the queries with a positive.
        positives: their relevant documents' rows, by descending grade, then by id; never empty.
        judged: rows of the documents judged not relevant (grade 0 or less), by descending grade, then by id; each text
            once, and never the text of a positive or the query itself.
        own: rows of the documents that are the query itself, as where questions are matched with questions; each text
            once.
        dropped: judged negatives left out because their text is a positive's, or came before, or is the query itself.
    """

    queries: np.ndarray
    positives: Ragged
    judged: Ragged
    own: Ragged
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.queries)

    def blocks(self) -> Iterator[TrainingQueries]:
        """Yield at most `BLOCK` examples at a time."""
        for start in range(0, len(self), BLOCK):
            stop = min(start + BLOCK, len(self))
            positives, judged, own = (one.part(start, stop) for one in (self.positives, self.judged, self.own))
            yield TrainingQueries(self.queries[start:stop], positives, judged, own)

    def take(self, places: np.ndarray) -> TrainingQueries:
        """Return some examples, by their places here in ascending order."""
        positives, judged, own = (one.take(places) for one in (self.positives, self.judged, self.own))
        return TrainingQueries(self.queries[places], positives, judged, own)

    def places(self, part: TrainingQueries) -> np.ndarray:
        """Return where the examples of a part stand among these ([Q])."""
        return np.searchsorted(self.queries, part.queries)

    def relevant(self) -> Mapping[int, frozenset[int]]:
        """Return what no batch may take for a negative, as `TrainingSet.relevant` wants it: positives and own."""
        lists = zip(self.queries.tolist(), self.positives.lists(), self.own.lists(), strict=True)
        return {query: frozenset([*rows.tolist(), *own.tolist()]) for query, rows, own in lists}


def training_examples(collection: Collection) -> TrainingQueries:
    """Return the examples of a collection's training split.

    Raises:
        UserError: it has no pair to train on.
    """
    judgements = sorted(
        (collection.query_rows[query], -grade, document, collection.document_rows[document])
        for query, documents in collection.qrels.get(SPLIT, {}).items()
        for document, grade in documents.items()
    )
    table = np.array([(query, -negated, row) for query, negated, _, row in judgements], np.int64).reshape(-1, 3)
    relevant = table[table[:, 1] >= 1]
    if not len(relevant):
        raise UserError(
            f"{collection.name} has no training pairs: none of the {len(judgements)} judgements of its split {SPLIT} "
            "is 1 or more; add some, or measure without training (task=evaluate)"
        )
    queries = np.unique(relevant[:, 0])
    others = table[(table[:, 1] < 1) & np.isin(table[:, 0], queries)]
    own = _own(collection, queries)
    themselves = np.stack([queries[own.owners], np.zeros_like(own.values), own.values], axis=1)
    judged = _new_texts(others, np.concatenate([relevant, themselves]), collection.document_copies)
    return TrainingQueries(
        queries.astype(np.int32),
        _by_query(relevant, queries),
        _by_query(judged, queries),
        own,
        len(others) - len(judged),
    )


def _by_query(table: np.ndarray, queries: np.ndarray) -> Ragged:
    owners = np.searchsorted(queries, table[:, 0])
    return Ragged.from_owners(table[:, 2].astype(np.int32), owners, len(queries))


def _own(collection: Collection, queries: np.ndarray) -> Ragged:
    """Return the documents that are the query itself: by text, with its title or without, or by id (`exclude_self`)."""
    asked = [digest_text(text) for text in collection.query_texts(queries.tolist())]
    wanted = pa.array(asked, pa.binary())
    own: dict[bytes, set[int]] = {}  # digest of a query → first rows of its texts
    for column in collection.document_digests.columns:
        digests = column.combine_chunks()
        rows = np.flatnonzero(pa.compute.is_in(digests, value_set=wanted))
        for row, digest in zip(rows, digests.take(rows).to_pylist(), strict=True):
            own.setdefault(digest, set()).add(int(collection.document_copies[row]))
    found = [own.get(digest, set()) for digest in asked]
    if collection.exclude_self:
        names = [collection.query_ids[query] for query in queries]
        same = [collection.document_rows.get(name) for name in names]
        copies = collection.document_copies
        found = [one if row is None else one | {int(copies[row])} for one, row in zip(found, same, strict=True)]
    return Ragged.of(sorted(one) for one in found)


def _new_texts(others: np.ndarray, known: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return the judgements whose text is not among the known ones of their query and was not judged for it before."""
    taken, texts = (table[:, 0] * len(copies) + copies[table[:, 2]] for table in (known, others))
    first = np.zeros(len(others), bool)
    first[np.unique(texts, return_index=True)[1]] = True
    return others[first & ~np.isin(texts, taken)]
