"""The types that embfit's packages exchange, and nothing else.

All of them are frozen. Text is addressed by row number within its `Collection` and never copied around, which makes
de-duplication, masking and caching exact and cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
import pyarrow as pa
from pydantic import Field

from embfit.text_digests import CONTENT, DIGESTS, digest_documents, document_text, first_rows

if TYPE_CHECKING:
    from datasets import Dataset

    from embfit.vectors import Vectors

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Judgements of one split: query id → {document id → grade}. A grade of 1 or more is relevant."""

Seed: TypeAlias = Annotated[int, Field(ge=0)]
"""Seed of random numbers; NumPy takes none below 0."""

BLOCK = 4096  # rows read from Arrow at a time


@dataclass(frozen=True)
class Collection:
    """Documents, queries and graded judgements by split: what every task starts from.

    Args:
        name: its name in reports and file names.
        corpus: Arrow table with the string columns `_id`, `title` and `text`, and perhaps the digests of
            `embfit.text_digests`; ids are unique.
        queries: Arrow table with the string columns `_id` and `text`, and perhaps `source` (where a query came from)
            and `weight` (how much it counts in training, empty for 1); ids are unique.
        qrels: split name (`train`, `dev`, `test`, or any other, such as `production`) → judgements. Every id in them
            is in the tables.
        facts: counts of what loading read and changed (`queries_merged: 3`), for the report.
        left_out: ids of the documents that loading left out because they have no text.
        exclude_self: whether a query and the document of the same id are the same text: the document is then neither an
            answer to the query nor a negative of it.
    """

    name: str
    corpus: Dataset
    queries: Dataset
    qrels: Mapping[str, Qrels]
    facts: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    exclude_self: bool = False

    @cached_property
    def document_ids(self) -> list[str]:
        """Document ids in row order."""
        return list(self.corpus["_id"])

    @cached_property
    def query_ids(self) -> list[str]:
        """Query ids in row order."""
        return list(self.queries["_id"])

    @property
    def query_sources(self) -> list[str] | None:
        """Where the queries came from, in row order; None if it is not recorded."""
        return self._query_tags("source")

    @property
    def query_weights(self) -> np.ndarray | None:
        """How much the queries count in training, in row order ([Q] float32); None if all count equally."""
        weights = self._query_tags("weight")
        return None if weights is None else np.array([float(weight or 1) for weight in weights], np.float32)

    def _query_tags(self, column: str) -> list[str] | None:
        tags = list(self.queries[column]) if column in self.queries.column_names else []
        return tags if any(tags) else None

    @cached_property
    def document_rows(self) -> Mapping[str, int]:
        """Document id → row."""
        return {name: row for row, name in enumerate(self.document_ids)}

    @cached_property
    def query_rows(self) -> Mapping[str, int]:
        """Query id → row."""
        return {name: row for row, name in enumerate(self.query_ids)}

    def document_texts(self, rows: Sequence[int] | None = None) -> Iterator[str]:
        """The text of each document for an encoder (`document_text`), in row order."""
        for block in _blocks(self.corpus, ["title", "text"], rows):
            yield from map(document_text, block["title"], block["text"])

    def query_texts(self, rows: Sequence[int] | None = None) -> Iterator[str]:
        """The queries' texts, in row order."""
        for block in _blocks(self.queries, ["text"], rows):
            yield from block["text"]

    @cached_property
    def document_digests(self) -> pa.Table:
        """Digests of the documents' texts, in row order: from the table's columns, else computed from the texts."""
        if CONTENT in self.corpus.column_names:
            return self.corpus.select_columns(DIGESTS.names).with_format("arrow")[:]
        blocks = _blocks(self.corpus, ["title", "text"], None)
        return pa.Table.from_batches((digest_documents(block["title"], block["text"]) for block in blocks), DIGESTS)

    @cached_property
    def document_copies(self) -> np.ndarray:
        """For each document row, the first row with the same text ([N] int32): equal texts share one row number."""
        return first_rows(self.document_digests[CONTENT])

    @cached_property
    def corpus_digest(self) -> str:
        """Identifies the documents: their ids and the digests of their texts, in order."""
        contents = (name for chunk in self.document_digests[CONTENT].chunks for name in chunk.to_pylist())
        return _digest(zip(self.document_ids, contents, strict=True))

    @cached_property
    def queries_digest(self) -> str:
        """Identifies the queries: their ids and texts, in order."""
        return _digest(zip(self.query_ids, self.query_texts(), strict=True))

    def qrels_digest(self, split: str) -> str:
        """Identifies one split's judgements, in any order."""
        rows = sorted(
            (query, document, str(grade))
            for query, documents in self.qrels[split].items()
            for document, grade in documents.items()
        )
        return _digest(rows)


@dataclass(frozen=True)
class TrainingSet:
    """Examples for the trainer: rows into a collection.

    Args:
        collection: whose rows the examples name.
        rows: Arrow table, one example a row: `query` (int32), `positives` (list of int32, never empty), `negatives`
            (list of int32, hardest first, may be empty: ragged), `scores` (list of float32: a teacher's scores of the
            positives and then of the negatives; empty without a teacher), `weight` (float32) and `source` (string:
            where the example came from). For people, and null where the source has none: `positive_scores`,
            `negative_scores`, `negative_ranks` and `negative_sources`.
        relevant: known relevant document rows by query row, only from the *training* split, and the documents that are
            the query itself. The trainer never counts one of them as a negative.
        facts: counts from mining (shortfalls, filtered negatives), for the report.
    """

    collection: Collection
    rows: Dataset
    relevant: Mapping[int, frozenset[int]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Embeddings:
    """The vectors of a table's rows, in row order.

    Args:
        vectors: the vectors of N texts, float32, possibly memory-mapped.
        fingerprint: identifies the texts and everything that their vectors depend on.
    """

    vectors: Vectors[np.ndarray]
    fingerprint: str


@dataclass(frozen=True)
class Ranking:
    """Ranked documents by query id: `[(document id, score), ...]`, best first, ties broken by id."""

    documents: Mapping[str, Sequence[tuple[str, float]]]

    @classmethod
    def of(
        cls, scored: Mapping[str, Iterable[tuple[str, float]]], depth: int | None = None, exclude_self: bool = False
    ) -> Ranking:
        """Order each query's scored documents by (-score, id): the one place where ties are broken.

        Args:
            scored: query id → (document id, score), in any order.
            depth: the number of documents to keep for each query; all by default.
            exclude_self: leave out the document that has the query's own id (`Collection.exclude_self`).
        """
        ranked: dict[str, list[tuple[str, float]]] = {}
        for query, pairs in scored.items():
            others = (pair for pair in pairs if not (exclude_self and pair[0] == query))
            ranked[query] = sorted(others, key=lambda pair: (-pair[1], pair[0]))[:depth]
        return cls(ranked)


@dataclass(frozen=True)
class WordMatch:
    """The match of one word of a query in a document, by late interaction.

    Args:
        word: the query's word, as written.
        found: the matched word of the document; None if the match is one of the model's own tokens, such as `[CLS]`.
        share: its share of the document's score.
    """

    word: str
    found: str | None
    share: float


@dataclass(frozen=True)
class MatchedWords:
    """The matched words behind a document's late-interaction score; the shares add up to the score.

    Args:
        score: the document's score, the mean over the query's vectors.
        words: the query's words, in order.
        own: the share of vectors that belong to no word: the marker, special tokens and expansion.
        found: spans of the matched words in the document, ascending, each with its share.
    """

    score: float
    words: Sequence[WordMatch]
    own: float
    found: Sequence[tuple[int, int, float]]


ExplainScores: TypeAlias = Callable[[str, Sequence[str]], Sequence[MatchedWords]]
"""Says how the scores of some documents of a query come about: query id, document ids → one for each document."""


@dataclass(frozen=True)
class Evaluation:
    """The results of one system on one split.

    Args:
        system: its name (`base`, `tuned`, `bm25`).
        split: the judgements used.
        metrics: metric name (`ndcg@10`) → mean over the queries evaluated.
        per_query: metric name → query id → value, so that any two evaluations can be compared.
        subsets: subset name → query ids (`unseen`: training saw none of the query's relevant documents).
        ranking: the ranking that was measured.
        facts: queries evaluated and left out, truncated documents, seconds of encoding.
        dims: the same system with its vectors cut to this many dimensions and renormalised (Matryoshka).
        funnel: cost and quality of smaller vectors with shortlists, if measured.
        explain: returns which words matched, if the scores are those of late interaction.
    """

    system: str
    split: str
    metrics: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    subsets: Mapping[str, Sequence[str]]
    ranking: Ranking
    facts: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[int, Evaluation] = field(default_factory=dict)
    funnel: Mapping[str, Any] = field(default_factory=dict)
    explain: ExplainScores | None = field(default=None, repr=False, compare=False)

    @property
    def found_any(self) -> bool:
        """Whether the system found a document for any query."""
        return int(self.facts.get("queries_without_result", 0)) < int(self.facts.get("queries", 1))


@dataclass(frozen=True)
class DevQuality:
    """The results of one validation during training.

    Args:
        metrics: metric → its mean over the dev split, with `ndcg@10`, which training watches.
        queries: `ndcg@10` of each query, in the same order at each validation.
    """

    metrics: Mapping[str, float]
    queries: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """System `b` against system `a` on the same queries: paired difference, interval and p-value of one metric.

    `ci95` is None if there are too few queries for an interval. `p_holm` is p corrected for the number of systems that
    were compared with `a`; None if `b` is the only one.
    """

    a: str
    b: str
    metric: str
    subset: str
    queries: int
    difference: float
    ci95: tuple[float, float] | None
    p: float
    wins: int
    ties: int
    losses: int
    p_holm: float | None = None


@dataclass(frozen=True)
class Report:
    """All findings of a run, from which `report.json` and `report.html` are written.

    `production` holds the same systems on the second query set, whose rankings are written too. `sections` holds the
    findings that only some runs have, by their key in `report.json`.
    """

    task: str
    evaluations: Sequence[Evaluation]
    comparisons: Sequence[Comparison]
    training: Mapping[str, Any] = field(default_factory=dict)
    mining: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    production: Sequence[Evaluation] = ()


def _blocks(table: Dataset, columns: list[str], rows: Sequence[int] | None) -> Iterator[Mapping[str, list[str]]]:
    named = table.select_columns(columns)
    chosen = named if rows is None else named.select(rows)
    for start in range(0, len(chosen), BLOCK):
        yield chosen[start : start + BLOCK]


def _digest(rows: Iterable[Sequence[str | bytes]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        for value in row:
            encoded = value.encode() if isinstance(value, str) else value
            digest.update(len(encoded).to_bytes(8, "little"))  # lengths distinguish ("ab", "c") from ("a", "bc")
            digest.update(encoded)
    return digest.hexdigest()
