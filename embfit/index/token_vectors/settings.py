"""The settings of a token index, and how `auto` chooses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from embfit.index.token_vectors.centroids import MOST, centroids_for
from embfit.index.token_vectors.codec import LEAST_FITTED, LEVELS, TokenFormat

TokenCandidates: TypeAlias = Literal["exact", "centroids"]
"""Which documents an index scores by itself: all, or those that the nearest centroids of a query's vectors propose."""

TokenShortlist: TypeAlias = Literal[TokenCandidates, "bm25"]
"""Which documents are scored, including those that a BM25 search of the query's words finds first."""

EXACT_BELOW = 2_000  # documents; with fewer, `auto` uses no centroids
FINE_UP_TO = 64  # dimensions; up to this many `auto` takes residual4, above residual2


@dataclass(frozen=True)
class TokenIndexing:
    """How a token index is built and searched.

    Args:
        format: how a vector is stored: `float16`; `int8`; `residual4` or `residual2`, the nearest centroid and four
            or two bits a dimension; `ternary`, the nearest centroid and one of three levels a dimension. `auto` is
            float16 below 2,000 documents, then residual4 up to 64 dimensions and residual2 above.
        centroids: the number of centroids; None for the largest power of two up to 8·√vectors.
        candidates: which documents a search scores: `exact` for all, `centroids` for those that have a vector near one
            of the query's, `bm25` for those that the caller's BM25 search finds; `auto` is exact below 2,000 documents,
            then centroids.
        shortlist: the least number of proposed documents that are scored in full.
        probes: how many of the nearest centroids propose documents, for each query vector.
        pool_factor: how many vectors of a document are merged into one, on average; 1 merges none.
        protected: how many of a document's first vectors are never merged.
        seed: draws the sample that centroids are trained on.
    """

    format: Literal["auto"] | TokenFormat = "auto"
    centroids: Annotated[int, Field(ge=1, le=MOST)] | None = None
    candidates: Literal["auto", TokenShortlist] = "auto"
    shortlist: Annotated[int, Field(ge=1)] = 256
    probes: Annotated[int, Field(ge=1)] = 64
    pool_factor: Annotated[int, Field(ge=1)] = 1
    protected: Annotated[int, Field(ge=0)] = 1
    seed: Annotated[int, Field(ge=0)] = 0

    def format_for(self, documents: int, vectors: int, dim: int) -> TokenFormat:
        """Return the format for these numbers of documents, of vectors and of dimensions."""
        if self.format != "auto":
            return self.format
        if documents < EXACT_BELOW or vectors < LEAST_FITTED:
            return "float16"
        return "residual4" if dim <= FINE_UP_TO else "residual2"

    def candidates_for(self, documents: int, vectors: int) -> TokenShortlist:
        """Return how candidates are found for these numbers of documents and of vectors."""
        if not vectors:
            return "exact"
        if self.candidates != "auto":
            return self.candidates
        return "exact" if documents < EXACT_BELOW else "centroids"

    def centroids_for(self, form: TokenFormat, candidates: TokenShortlist, vectors: int) -> int:
        """Return the number of centroids: 0 if neither the format nor the search needs any."""
        if form not in LEVELS and candidates != "centroids":
            return 0
        return self.centroids or centroids_for(vectors)
