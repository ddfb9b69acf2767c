"""Explain which words matched in the documents that a late-interaction system found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embfit.model.encoder import Kind
from embfit.model.late_interaction import LateInteractionEncoder, Spans
from embfit.model.matched_words import match_words
from embfit.records import Collection, MatchedWords
from embfit.vectors import Vectors


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explains scores by the vectors that were searched; training the encoder afterwards does not change them.

    Args:
        collection: has the texts.
        rows: the queries' rows, in the order of their vectors.
        queries: the queries' vectors.
        read: returns the vectors of documents by row, as they were searched.
        spans: by kind, finds the span of text that each vector stands for.
    """

    collection: Collection
    rows: Sequence[int]
    queries: Vectors[np.ndarray]
    read: Callable[[np.ndarray], Vectors[np.ndarray]]
    spans: Mapping[Kind, Spans]

    @classmethod
    def of(
        cls,
        encoder: LateInteractionEncoder,
        collection: Collection,
        rows: Sequence[int],
        queries: Vectors[np.ndarray],
        read: Callable[[np.ndarray], Vectors[np.ndarray]],
    ) -> Explanation:
        """Return the explanation of an encoder's search; of the encoder it keeps only the tokenizer."""
        spans: dict[Kind, Spans] = {"query": encoder.spans("query"), "document": encoder.spans("document")}
        return cls(collection, rows, queries, read, spans)

    @cached_property
    def _places(self) -> Mapping[int, int]:
        return {row: place for place, row in enumerate(self.rows)}

    def __call__(self, query: str, documents: Sequence[str]) -> list[MatchedWords]:
        """Return, for each document id, how much each word of the query adds to its score.

        Raises:
            KeyError: the query was not searched for, or there is no such document.
        """
        row = self.collection.query_rows[query]
        place = self._places[row]
        chosen = [self.collection.document_rows[document] for document in documents]
        return match_words(
            next(self.collection.query_texts([row])),
            list(self.collection.document_texts(chosen)),
            self.queries.part(place, place + 1),
            self.read(np.array(chosen, np.int64)),
            self.spans["query"],
            self.spans["document"],
        )
