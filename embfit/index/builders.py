"""The `index` group: how the documents of a bundle are searched by vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.index.approximate import GROWING, ApproximateIndex, Approximation
from embfit.index.compressed import Format
from embfit.index.exact import ExactIndex
from embfit.index.funnel import FunnelIndex
from embfit.index.protocol import IndexBuilder, IndexInput, check_single
from embfit.index.token_vectors import TokenIndex, TokenIndexing
from embfit.records import Seed
from embfit.vectors import Vectors

Values = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class ExactBuilder:
    """An exact search over every vector."""

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Accept all vectors."""

    def write(self, given: IndexInput, folder: Path) -> None:
        """Write the vectors as they are."""
        ExactIndex(given.documents.vectors, given.documents.fingerprint).save(folder)


@dataclass(frozen=True)
class ApproximateBuilder:
    """An index of compressed vectors that proposes documents, which full vectors score.

    Args:
        method: how documents are proposed: by a graph (`hnsw`), by lists (`ivf`), or by a scan of all vectors at 8 or
            16 bits a dimension.
        rebuild_share: if the share of removed documents in the earlier version's graph or lists would exceed this, a
            new index is built; otherwise documents are added to the earlier one.
        seed: draws the sample that the index is trained on.
    """

    method: Approximation
    rebuild_share: Share = 0.2
    seed: Seed = 0

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Check that documents have one vector each.

        Raises:
            ValueError: they have several.
        """
        check_single(single, "an approximate index")

    def write(self, given: IndexInput, folder: Path) -> None:
        """Write an index of the vectors: a new one, or an earlier one of the same method with documents added.

        Raises:
            ValueError: documents have several vectors each.
        """
        self._index(given).save(folder)

    def _index(self, given: IndexInput) -> ApproximateIndex:
        documents, earlier = given.documents, given.earlier
        if earlier is not None and isinstance(earlier.index, ApproximateIndex) and self.method in GROWING:
            before = earlier.index
            same = (before.method, before.seed, before.documents.width) == (
                self.method,
                self.seed,
                documents.vectors.width,
            )
            if same and before.removed_share_with(earlier.rows) <= self.rebuild_share:
                return before.updated(documents.vectors, earlier.rows, documents.fingerprint, given.label)
        return ApproximateIndex.build(documents.vectors, self.method, documents.fingerprint, self.seed, given.label)


@dataclass(frozen=True)
class FunnelBuilder:
    """A search in two stages: the first dimensions of all vectors find a shortlist, and whole vectors rank it.

    It suits models that were trained for few dimensions (`loss=mrl`). `evaluator.funnel` measures these settings.

    Args:
        dims: how many dimensions find the shortlist.
        format: how these are stored in memory.
        shortlist: how many documents they find for a query.
    """

    dims: Annotated[int, Field(ge=1)] = 128
    format: Format = "float32"
    shortlist: Annotated[int, Field(ge=1)] = 200

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Check that documents have one vector each, of at least `dims` dimensions.

        Raises:
            ValueError: they have several, or fewer dimensions.
        """
        check_single(single, "a funnel")
        if self.dims > width:
            raise ValueError(f"index.dims={self.dims} exceeds the vectors' {width} dimensions; lower it")

    def write(self, given: IndexInput, folder: Path) -> None:
        """Write the small vectors and the whole ones.

        Raises:
            ValueError: documents have several vectors each, or fewer than `dims` dimensions.
        """
        vectors = given.documents.vectors
        FunnelIndex.build(vectors, self.dims, self.format, self.shortlist, given.documents.fingerprint).save(folder)


@dataclass(frozen=True)
class TokenBuilder(TokenIndexing):
    """One vector a token, stored in few bytes; `TokenIndexing` documents the settings.

    The index does not keep the original vectors, so a changed corpus is encoded and indexed again as a whole.
    """

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Check that documents have several vectors each.

        Raises:
            ValueError: they have one.
        """
        if single:
            raise ValueError("index=tokens is for one vector a token, and this model gives one a text; set index=auto")

    def write(self, given: IndexInput, folder: Path) -> None:
        """Write an index of the vectors.

        Raises:
            ValueError: the format cannot store the documents' vectors.
        """
        documents = given.documents
        TokenIndex.build(documents.vectors, folder, self, documents.fingerprint, label=given.label)


@dataclass(frozen=True)
class AutoBuilder:
    """The index that answers a single query within about five milliseconds on one core, chosen by the corpus's size.

    Limits count values, which are documents times dimensions: a scan takes time in proportion to them. Documents of
    several vectors each get an index of token vectors with its own defaults.

    Args:
        exact: up to this many values, the search is exact (100,000 documents of 384 dimensions).
        compact: up to this many values, a scan at 8 bits a dimension proposes documents, which are scored exactly
            (250,000 of 384); above, a graph proposes them.
        rebuild_share: as in `ApproximateBuilder`.
        seed: as in `ApproximateBuilder`.
    """

    exact: Values = 40_000_000
    compact: Values = 100_000_000
    rebuild_share: Share = 0.2
    seed: Seed = 0

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Accept all vectors."""

    def write(self, given: IndexInput, folder: Path) -> None:
        """Write the index that suits the number of vectors."""
        self._builder(given.documents.vectors).write(given, folder)

    def _builder(self, vectors: Vectors[np.ndarray]) -> IndexBuilder:
        if not vectors.single:
            return TokenBuilder(seed=self.seed)
        values = len(vectors) * vectors.width
        if values <= self.exact:
            return ExactBuilder()
        return ApproximateBuilder("int8" if values <= self.compact else "hnsw", self.rebuild_share, self.seed)
