"""Search a collection with its own queries, and turn the hits into rankings."""

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
        collection: has the documents and queries. With `exclude_self`, the document with the query's id is left out.
        depth: how many documents are ranked for each query.
    """

    collection: Collection
    depth: int

    @property
    def search_depth(self) -> int:
        """How many documents to search for: one more than `depth` if one may be left out."""
        return min(self.depth + self.collection.exclude_self, len(self.collection.corpus))

    def nearest(self, queries: Vectors[np.ndarray], index: VectorIndex, rows: np.ndarray | None = None) -> Hits:
        """Return each query's nearest documents, as their rows in the collection.

        Args:
            queries: the queries' vectors.
            index: holds all documents of the collection, or some.
            rows: [N] the rows of the documents that the index holds; None where it holds all of them.

        Raises:
            UserError: a vector is not finite.
        """
        try:
            scores, places = index.search(queries, min(self.search_depth, len(index)), "searching")
        except ValueError as error:  # width and depth fit the index, so a vector is not finite
            raise UserError(
                f"the model's vectors cannot be searched: {error}; check its weights and model.precision"
            ) from None
        return scores, places if rows is None else np.where(places == NOTHING, NOTHING, rows[places])

    def ranking(self, query_rows: Sequence[int], hits: Hits) -> Ranking:
        """Return the hits of these queries, in the same order, as a ranking."""
        ids = self.collection.document_ids
        scored = {
            self.collection.query_ids[query]: [
                (ids[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row != NOTHING
            ]
            for query, scores, rows in zip(query_rows, *hits, strict=True)
        }
        return Ranking.of(scored, self.depth, self.collection.exclude_self)
