"""Searches documents by vectors, by words or by both, with the query encoder and the indexes in one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from embfit.bundle.documents import TEXTS, metadata_columns
from embfit.errors import UserError
from embfit.evaluator.fusion import reciprocal_ranks
from embfit.index import BM25Index, TokenIndex, VectorIndex
from embfit.index.inner_products import best
from embfit.index.protocol import NOTHING, Hits
from embfit.model import CrossEncoder, Encoder
from embfit.records import Collection, Ranking
from embfit.vectors import Vectors

Mode: TypeAlias = Literal["dense", "words", "hybrid"]
"""By vectors, by words (BM25), or by the reciprocal ranks of both."""

FUSED = 100  # the fewest documents of each list for hybrid search
FUSION_K = 60  # the constant of reciprocal rank fusion (Cormack et al. 2009)
SCANNED = 20_000  # up to so many allowed documents are all scored, without the index


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Args:
        id: the document's id.
        score: the inner product of the vectors, BM25's score, or the sum of reciprocal ranks: higher is better.
        row: its row among the documents.
        title: its title; empty where texts are not kept.
        text: its text; likewise.
        metadata: its other columns.
    """

    id: str
    score: float
    row: int
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Searcher:
    """Answers queries over one set of documents. Threads may share it.

    Args:
        encoder: encodes queries, by the model that encoded the documents.
        index: the index of the documents' vectors.
        documents: ids, texts and metadata; row i is document i of the index.
        words: the BM25 index of the same documents, if there is one. An index with `candidates=bm25` scores only what
            it finds, so a document without any of a query's words is no result in any mode.
    """

    encoder: Encoder
    index: VectorIndex
    documents: Collection
    words: BM25Index | None = None

    def search(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode = "dense",
        allowed: np.ndarray | None = None,
        vectors: Vectors[np.ndarray] | None = None,
        label: str | None = None,
    ) -> Hits:
        """Find each query's best documents.

        Args:
            queries: the queries' texts.
            k: the number of documents for each query, at most all.
            mode: whether to search by vectors, by words or by both.
            allowed: the rows of the documents that may be found, ascending ([M]); None allows all.
            vectors: the queries' vectors, if they have been computed already.
            label: the name that the progress of the search by vectors is shown under; None shows none.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64, by (-score, row), or (-score, id) in hybrid mode; an empty
            place has row -1 and score 0.

        Raises:
            UserError: there is no BM25 index, or a vector is not finite.
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"k={k} is below 1")
        k = min(k, len(self.index) if allowed is None else len(allowed))
        if not (queries and k):
            return np.zeros((len(queries), k), np.float32), np.full((len(queries), k), NOTHING)
        if mode == "words":
            return self._by_words(queries, k, allowed)
        depth = max(k, FUSED) if mode == "hybrid" else k
        vectors = vectors or self.encoder.embed(queries, "query")
        try:
            found = self._by_vectors(queries, vectors, depth, allowed, label)
        except ValueError as error:
            raise UserError(f"the query's vector cannot be searched: {error}") from error
        if mode == "dense":
            return found
        return self._fuse([found, self._by_words(queries, depth, allowed)], k)

    def hits(self, found: Hits) -> list[list[Hit]]:
        """Return the results of `search` with ids, texts and metadata, query by query."""
        scores, rows = found
        wanted = np.unique(rows[rows >= 0])
        columns = metadata_columns(self.documents)
        kept = [name for name in TEXTS if name in self.documents.corpus.column_names]
        table = self.documents.corpus.select_columns(["_id", *kept, *columns])[wanted] if len(wanted) else {}
        places = {row: place for place, row in enumerate(wanted.tolist())}

        def hit(row: int, score: float) -> Hit:
            values = {name: column[places[row]] for name, column in table.items()}
            texts = {name: values.pop(name) or "" for name in kept}
            return Hit(values.pop("_id"), score, row, **texts, metadata=values)

        return [
            [hit(row, score) for row, score in zip(one, their_scores, strict=True) if row >= 0]
            for one, their_scores in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def _by_vectors(
        self,
        queries: Sequence[str],
        vectors: Vectors[np.ndarray],
        k: int,
        allowed: np.ndarray | None,
        label: str | None,
    ) -> Hits:
        index, documents = self.index, len(self.index)
        if isinstance(index, TokenIndex) and index.bm25_shortlist is not None:
            _, among = self._by_words(queries, min(documents, max(k, index.bm25_shortlist)), allowed)
            return index.search(vectors, min(k, documents), label, among)
        search = partial(index.search, label=label)
        return _within(search, index.score, vectors, len(vectors), documents, k, allowed)

    def _by_words(self, queries: Sequence[str], k: int, allowed: np.ndarray | None) -> Hits:
        if self.words is None:
            raise UserError("these documents have no BM25 index; make one with bundle.words=true (task=index)")
        scores, rows = _within(self.words.search, self.words.score, queries, len(queries), len(self.words), k, allowed)
        return scores, np.where(scores > 0, rows, NOTHING)  # a document without any of the words is no result

    def _fuse(self, lists: Sequence[Hits], k: int) -> Hits:
        """Fuse several lists by the sum of each document's reciprocal ranks."""
        names = self.documents.document_ids
        rankings = [
            Ranking.of(
                {
                    str(query): [(names[row], score) for row, score in zip(one, their, strict=True) if row >= 0]
                    for query, (one, their) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True))
                }
            )
            for scores, rows in lists
        ]
        fused = reciprocal_ranks(rankings, [1.0] * len(rankings), FUSION_K, k).documents
        scores = np.zeros((len(fused), k), np.float32)
        rows = np.full((len(fused), k), NOTHING)
        for query, found in fused.items():
            for place, (name, score) in enumerate(found):
                rows[int(query), place], scores[int(query), place] = self.documents.document_rows[name], score
        return scores, rows


def rerank(
    query: str, documents: Sequence[str], ranker: Encoder | CrossEncoder, top: int | None = None
) -> list[tuple[int, float]]:
    """Order texts by how well they answer a query.

    Args:
        query: the query.
        documents: the texts.
        ranker: an encoder, which compares vectors, or a cross-encoder, which reads query and text together.
        top: how many to return; None is all.

    Returns:
        The place of each in `documents` and its score, best first; equal scores keep their order.
    """
    if not documents:
        return []
    if isinstance(ranker, CrossEncoder):
        scores = ranker.score([(query, text) for text in documents])
    else:
        scores = ranker.embed([query], "query").scores(ranker.embed(documents, "document"))[0]
    order = np.argsort(-scores, kind="stable")[:top]
    return [(int(place), float(scores[place])) for place in order]


def _within(
    search: Callable[[Any, int], Hits],
    score: Callable[[Any, np.ndarray], np.ndarray],
    queries: Any,
    count: int,
    documents: int,
    k: int,
    allowed: np.ndarray | None,
) -> Hits:
    """Search all documents, or only the allowed ones.

    If few documents are allowed, all of them are scored. Otherwise the index returns more and more documents, until
    enough of them are allowed.

    Args:
        search: the search method of an index.
        score: the score method of the same index.
        queries: the queries, in the form that the index takes.
        count: the number of queries.
        documents: the number of documents in the index.
        k: the number of documents for each query.
        allowed: the allowed rows, ascending; None allows all.
    """
    if allowed is None:
        return search(queries, min(k, documents))
    k = min(k, len(allowed))
    if len(allowed) <= SCANNED:
        rows = np.broadcast_to(allowed, (count, len(allowed)))
        return best(score(queries, rows), rows, k)
    mask = np.zeros(documents, bool)
    mask[allowed] = True
    depth = min(documents, 2 * k * documents // len(allowed))
    while True:
        scores, rows = search(queries, depth)
        fits = (rows >= 0) & mask[rows]
        if depth == documents or (fits.sum(axis=1) >= k).all():
            lowest = np.where(fits, scores, np.float32(-np.inf))
            scores, rows = best(lowest, np.where(fits, rows, NOTHING), k)
            return np.where(rows == NOTHING, np.float32(0), scores), rows
        depth = min(documents, 4 * depth)
