"""The `index` group: how the documents of a bundle are searched by vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from embfit.index.approximate import GROWING, ApproximateIndex, Approximation
from embfit.index.exact import ExactIndex
from embfit.index.protocol import EarlierIndex, VectorIndex
from embfit.records import Embeddings, Seed

Values = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class ExactBuilder:
    """Every vector, compared exactly."""

    def build(self, documents: Embeddings, earlier: EarlierIndex | None = None, label: str | None = None) -> ExactIndex:
        """Take the vectors as they are."""
        return ExactIndex(documents.vectors, documents.fingerprint)


@dataclass(frozen=True)
class ApproximateBuilder:
    """Compact vectors propose documents, and the vectors themselves score them.

    Args:
        method: how documents are proposed: by a graph (`hnsw`), by lists (`ivf`), or by a scan of all vectors at 8 or
            16 bits a dimension.
        rebuild_share: the share of removed documents in a graph, or in lists, from which on a new one is built; until
            then documents are added to the earlier version's.
        seed: draws the sample that the index is trained on.
    """

    method: Approximation
    rebuild_share: Share = 0.2
    seed: Seed = 0

    def build(
        self, documents: Embeddings, earlier: EarlierIndex | None = None, label: str | None = None
    ) -> ApproximateIndex:
        """Index the vectors, or add to an earlier index of the same method.

        Raises:
            ValueError: documents have several vectors each.
        """
        if earlier is not None and isinstance(earlier.index, ApproximateIndex) and self.method in GROWING:
            before = earlier.index
            same = (before.method, before.seed, before.documents.width) == (
                self.method,
                self.seed,
                documents.vectors.width,
            )
            if same and before.removed_share_with(earlier.rows) <= self.rebuild_share:
                return before.updated(documents.vectors, earlier.rows, documents.fingerprint, label)
        return ApproximateIndex.build(documents.vectors, self.method, documents.fingerprint, self.seed, label)


@dataclass(frozen=True)
class AutoBuilder:
    """What answers one query at a time within about five milliseconds on one core, by the size of the documents.

    Limits are numbers of values, documents times dimensions: a scan takes time in proportion to them. What has several
    vectors a document is compared exactly.

    Args:
        exact: up to so many values every vector is compared exactly (100,000 documents of 384 dimensions).
        compact: up to so many, at 8 bits a dimension, with the best ones scored exactly (250,000 of 384); beyond, a
            graph proposes.
        rebuild_share: as `ApproximateBuilder`.
        seed: likewise.
    """

    exact: Values = 40_000_000
    compact: Values = 100_000_000
    rebuild_share: Share = 0.2
    seed: Seed = 0

    def build(
        self, documents: Embeddings, earlier: EarlierIndex | None = None, label: str | None = None
    ) -> VectorIndex:
        """Index the vectors by what their number asks for."""
        vectors = documents.vectors
        values = len(vectors) * vectors.width
        if values <= self.exact or not vectors.single:
            return ExactBuilder().build(documents, earlier, label)
        method: Approximation = "int8" if values <= self.compact else "hnsw"
        return ApproximateBuilder(method, self.rebuild_share, self.seed).build(documents, earlier, label)
