"""Choose the documents that get queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from embfit.errors import UserError
from embfit.records import Collection
from embfit.vectors import Vectors

DocumentSampling: TypeAlias = Literal["clusters", "random"]

MOST_CLUSTERS = 256
PER_CLUSTER = 40  # documents in a cluster, at least on average; smaller clusters mean little
ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class DocumentChoice:
    """The documents that queries are written about; of several with the same text, only the first.

    Args:
        limit: the most documents; None for all.
        sample: how to draw them if there are more: `clusters` draws from each cluster of the base model's vectors in
            proportion to its size, `random` draws all with equal probability.
        min_words: documents of fewer words get no queries.
        max_words: how many words of a document are read, from its beginning.
    """

    limit: Annotated[int, Field(ge=1)] | None = None
    sample: DocumentSampling = "clusters"
    min_words: Annotated[int, Field(ge=0)] = 20
    max_words: Annotated[int, Field(ge=1)] = 350

    def choose(
        self,
        collection: Collection,
        vectors: Callable[[np.ndarray], Vectors[np.ndarray]],
        seed: int,
        apart_from: Sequence[int] = (),
    ) -> np.ndarray:
        """Return the rows of the documents that get queries, ascending ([N] int64).

        Args:
            collection: has the documents.
            vectors: returns the vectors of the documents of some rows; called only for `clusters`.
            seed: draws the documents.
            apart_from: rows of documents that get no queries.

        Raises:
            UserError: no document is long enough.
        """
        left_out = {int(collection.document_copies[row]) for row in apart_from}
        firsts = np.flatnonzero(collection.document_copies == np.arange(len(collection.document_copies)))
        texts = collection.document_texts(firsts.tolist())
        rows = np.array(
            [
                row
                for row, text in zip(firsts.tolist(), texts, strict=True)
                if row not in left_out and len(text.split()) >= self.min_words
            ],
            np.int64,
        )
        if not len(rows):
            raise UserError(
                f"none of the {len(collection.corpus)} documents has the {self.min_words} words "
                "(generator.documents.min_words) that a query can be written about; lower it"
            )
        if self.limit is None or self.limit >= len(rows):
            return rows
        random = np.random.default_rng(seed)
        if self.sample == "random":
            drawn: np.ndarray = np.sort(random.choice(rows, self.limit, replace=False))
            return drawn
        places = np.sort(_stratified(vectors(rows).means(), self.limit, random, seed))
        chosen: np.ndarray = rows[places]
        return chosen

    def read(self, text: str) -> str:
        """Return the part of a document that is read."""
        words = text.split()
        return text if len(words) <= self.max_words else " ".join(words[: self.max_words])


def _stratified(vectors: np.ndarray, wanted: int, random: np.random.Generator, seed: int) -> np.ndarray:
    """Return the places of some vectors, drawn from k-means clusters in proportion to their sizes ([wanted] int64)."""
    import faiss  # takes a third of a second to import

    clusters = max(1, min(MOST_CLUSTERS, wanted, len(vectors) // PER_CLUSTER))
    matrix = np.ascontiguousarray(vectors, np.float32)
    means = faiss.Kmeans(matrix.shape[1], clusters, niter=ROUNDS, seed=seed % (1 << 31), min_points_per_centroid=1)
    means.train(matrix)
    _, nearest = means.index.search(matrix, 1)  # [N, 1]
    order = random.permutation(len(matrix))
    order = order[np.argsort(nearest[order, 0], kind="stable")]  # by cluster, in random order within it
    # every (N / wanted)-th of them: each cluster contributes its share, rounded up or down
    chosen: np.ndarray = order[((np.arange(wanted) + random.random()) * len(order) / wanted).astype(np.int64)]
    return chosen
