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

DEPTH = 100  # ranks that are looked at


@dataclass(frozen=True)
class RoundTrip:
    """Where queries find their documents.

    Args:
        ranks: by ranker, each query's rank of its document, from 1; None beyond the first hundred.
        found: by ranker, what it found for each query, best first ([Q, k] rows; -1 where there is none).
        vectors: the queries' vectors; None where no encoder was there.
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
        sources: the row of each query's document; a document with the same text stands for it.
        collection: is searched.
        encoder: embeds queries and documents; None where nothing asks for vectors.
        store: keeps embeddings and words.
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
    """Return the documents of a collection with generated queries, of which nothing is judged."""
    from datasets import Dataset  # when queries are searched for: it brings pandas, and a run's start is to be quick

    queries = Dataset.from_dict({"_id": [str(number) for number in range(len(texts))], "text": list(texts)})
    return Collection("generated queries", collection.corpus, queries, {})


def _ranks(rows: np.ndarray, sources: Sequence[int], collection: Collection) -> list[int | None]:
    """Return the rank of each query's document among the rows that were found ([Q, k], -1 where there is none)."""
    copies = collection.document_copies
    found = np.where(rows >= 0, copies[rows], -1) == copies[np.asarray(sources, np.int64)][:, None]  # [Q, k]
    places = np.where(found.any(axis=1), found.argmax(axis=1) + 1, 0)
    return [int(place) or None for place in places]
