"""Searches a collection for its queries, as deep as rankings go, and makes rankings of the hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embfit.errors import UserError
from embfit.index.protocol import NOTHING, Hits, VectorIndex
from embfit.records import Collection, Ranking
from embfit.vectors import Vectors


@dataclass(frozen=True)
class CorpusSearch:
    """A collection, searched to a depth.

    Args:
        collection: what is searched. Where a query and the document of the same id are one, that document is left out.
        depth: how many documents are ranked for each query.
    """

    collection: Collection
    depth: int

    @property
    def reach(self) -> int:
        """How many documents to search for: one more where one may be left out."""
        return min(self.depth + self.collection.exclude_self, len(self.collection.corpus))

    def nearest(self, queries: Vectors[np.ndarray], index: VectorIndex, rows: np.ndarray | None = None) -> Hits:
        """Return each query's nearest documents, as their rows in the collection.

        Args:
            queries: their vectors.
            index: holds all documents of the collection, or some.
            rows: [N] the rows of the documents that the index holds; None where it holds all of them.

        Raises:
            UserError: a vector is not finite.
        """
        try:
            scores, places = index.search(queries, min(self.reach, len(index)), "searching")
        except ValueError as error:  # widths and reach fit, so a vector is not finite
            raise UserError(
                f"the model's vectors cannot be searched: {error}; its weights or precision are at fault"
            ) from None
        return scores, places if rows is None else np.where(places == NOTHING, NOTHING, rows[places])

    def ranking(self, asked: Sequence[int], hits: Hits) -> Ranking:
        """Return hits as a ranking, where `asked` has the rows of their queries."""
        ids = self.collection.document_ids
        scored = {
            self.collection.query_ids[query]: [
                (ids[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row != NOTHING
            ]
            for query, scores, rows in zip(asked, *hits, strict=True)
        }
        return Ranking.of(scored, self.depth, self.collection.exclude_self)
