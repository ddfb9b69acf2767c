"""What the training split says: the queries to mine for, their positives, and the negatives that were judged."""

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

SPLIT = "train"  # no other split is read here: mining with its judgements would leak them into training
BLOCK = 16_384  # queries mined at once, which bounds the memory that their candidates take


@dataclass(frozen=True)
class TrainingQueries:
    """Training queries with what is known about them, in the order of query rows.

    Args:
        queries: [Q] int32, the rows of the queries that have a positive.
        positives: the rows of each query's relevant documents, by descending grade, then by id; never empty.
        judged: the rows of each query's documents judged not relevant (grade 0 or less), by descending grade, then by
            id. Each text stands once; none is the text of a positive or of the query itself.
        own: the rows of documents that are the query itself, which occur where questions are matched with questions;
            each text stands once.
        dropped: the number of judged negatives left out because their text is that of a positive, of an earlier judged
            negative or of the query itself.
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
        """Return the examples at some places, which must ascend."""
        positives, judged, own = (one.take(places) for one in (self.positives, self.judged, self.own))
        return TrainingQueries(self.queries[places], positives, judged, own)

    def places(self, part: TrainingQueries) -> np.ndarray:
        """Return the places of a part's examples among these ([Q])."""
        return np.searchsorted(self.queries, part.queries)

    def relevant(self) -> Mapping[int, frozenset[int]]:
        """Return the documents that no batch may use as negatives of a query: its positives and those in `own`."""
        lists = zip(self.queries.tolist(), self.positives.lists(), self.own.lists(), strict=True)
        return {query: frozenset([*rows.tolist(), *own.tolist()]) for query, rows, own in lists}


def training_examples(collection: Collection) -> TrainingQueries:
    """Return the training queries of a collection.

    Raises:
        UserError: the collection has no pair to train on.
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
            f"{collection.name} has no training pairs: none of the {len(judgements)} judgements in its split {SPLIT} "
            "has a grade of 1 or more; add some, or measure without training (task=evaluate)"
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
    """Return the documents that are the query itself, by text (with or without title) or by id (`exclude_self`)."""
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
    """Return the judgements of texts that are neither known for their query nor judged for it before."""
    taken, texts = (table[:, 0] * len(copies) + copies[table[:, 2]] for table in (known, others))
    first = np.zeros(len(others), bool)
    first[np.unique(texts, return_index=True)[1]] = True
    return others[first & ~np.isin(texts, taken)]
