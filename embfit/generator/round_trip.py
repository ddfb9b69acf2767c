"""Whether a query finds the document that it was written about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embfit.index import ExactIndex, index_words
from embfit.index.language import LanguageChoice, language_of
from embfit.model import Encoder, embed
from embfit.records import Collection
from embfit.store import Store
from embfit.vectors import Vectors

DEPTH = 100  # how many documents are ranked


@dataclass(frozen=True)
class RoundTrip:
    """The ranks at which queries find their documents.

    Args:
        ranks: by ranker, the rank of each query's document, from 1; None beyond the first hundred.
        found: by ranker, the hits of each query, best first ([Q, k] rows; -1 in empty places).
        vectors: the queries' vectors; None without an encoder.
    """

    ranks: Mapping[str, Sequence[int | None]]
    found: Mapping[str, np.ndarray]
    vectors: Vectors[np.ndarray] | None = None

    def by_query(self) -> Iterator[tuple[int | None, ...]]:
        """Yield each query's ranks."""
        yield from zip(*self.ranks.values(), strict=True)


def source_ranks(
    texts: Sequence[str],
    sources: Sequence[int],
    collection: Collection,
    encoder: Encoder | None,
    store: Store,
    rankers: Sequence[str],
    language: LanguageChoice,
) -> RoundTrip:
    """Search for queries, and return the ranks of the documents that they were written about.

    Args:
        texts: the queries.
        sources: the row of each query's document; one with the same text counts as the same document.
        collection: the collection to search.
        encoder: embeds queries and documents; None if no vectors are needed.
        store: keeps embeddings and BM25 indexes.
        rankers: `dense`, `bm25` or both.
        language: the language of BM25's stemmer and stop words.
    """
    found: dict[str, np.ndarray] = {}
    vectors = None
    k = min(DEPTH, len(collection.corpus))
    if encoder is not None:
        vectors = embed(encoder, with_texts(collection, texts), "query", store).vectors
        if "dense" in rankers:
            documents = ExactIndex(embed(encoder, collection, "document", store).vectors)
            found["dense"] = documents.search(vectors, k, "searching by vectors")[1]
    if "bm25" in rankers:
        words_of = language_of(language, collection, store, "generator.filters.language=auto")
        found["bm25"] = index_words(collection, store, words_of).search(texts, k, "searching by words")[1]
    ranks = {name: _ranks(rows, sources, collection) for name, rows in found.items()}
    return RoundTrip(ranks, found, vectors)


def with_texts(collection: Collection, texts: Sequence[str]) -> Collection:
    """Return a collection of the same documents with generated queries, without judgements."""
    from datasets import Dataset  # imports pandas, which would slow down a run's start

    queries = Dataset.from_dict({"_id": [str(number) for number in range(len(texts))], "text": list(texts)})
    return Collection("generated queries", collection.corpus, queries, {})


def _ranks(rows: np.ndarray, sources: Sequence[int], collection: Collection) -> list[int | None]:
    """Return the rank of each query's document among its hits ([Q, k] rows, -1 in empty places)."""
    copies = collection.document_copies
    found = np.where(rows >= 0, copies[rows], -1) == copies[np.asarray(sources, np.int64)][:, None]  # [Q, k]
    places = np.where(found.any(axis=1), found.argmax(axis=1) + 1, 0)
    return [int(place) or None for place in places]
