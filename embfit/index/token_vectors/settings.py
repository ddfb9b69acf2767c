"""How token vectors are kept and searched: the settings of a token index, and what `auto` makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from embfit.index.token_vectors.centroids import MOST, centroids_for
from embfit.index.token_vectors.codec import LEAST_FITTED, LEVELS, TokenFormat

TokenCandidates: TypeAlias = Literal["exact", "centroids"]
"""Which documents are scored: all, or those that the centroids nearest to a query's vectors propose."""

EXACT_BELOW = 2_000  # documents; `auto` makes no centroids for fewer
FINE_UP_TO = 64  # dimensions: `auto` spends four bits on each of so many, and fewer on each of more


@dataclass(frozen=True)
class TokenIndexing:
    """How a token index is built and searched.

    Args:
        format: what is kept of a vector: `float16`; `int8`; `residual4` or `residual2`, the nearest centroid and four
            or two bits a dimension; `ternary`, the nearest centroid and one of three levels a dimension. `auto` is
            float16 below 2,000 documents, then residual4 up to 64 dimensions and residual2 above.
        centroids: how many k-means makes; None for the power of two up to 8·√vectors.
        candidates: which documents a search scores: `exact` for all, `centroids` for those that have a vector near one
            of the query's; `auto` is exact below 2,000 documents.
        shortlist: how many of the proposed documents are scored in full, at least.
        probes: how many centroids each vector of a query looks at.
        pool_factor: how many vectors of a document become one, on average; 1 keeps all.
        protected: the first vectors of a document that are never pooled.
        seed: draws the sample that centroids are trained on.
    """

    format: Literal["auto"] | TokenFormat = "auto"
    centroids: Annotated[int, Field(ge=1, le=MOST)] | None = None
    candidates: Literal["auto"] | TokenCandidates = "auto"
    shortlist: Annotated[int, Field(ge=1)] = 256
    probes: Annotated[int, Field(ge=1)] = 64
    pool_factor: Annotated[int, Field(ge=1)] = 1
    protected: Annotated[int, Field(ge=0)] = 1
    seed: Annotated[int, Field(ge=0)] = 0

    def format_for(self, documents: int, vectors: int, dim: int) -> TokenFormat:
        """Return the format of so many documents, which have so many vectors."""
        if self.format != "auto":
            return self.format
        if documents < EXACT_BELOW or vectors < LEAST_FITTED:
            return "float16"
        return "residual4" if dim <= FINE_UP_TO else "residual2"

    def candidates_for(self, documents: int, vectors: int) -> TokenCandidates:
        """Return how candidates are found among so many documents."""
        if not vectors:
            return "exact"
        if self.candidates != "auto":
            return self.candidates
        return "exact" if documents < EXACT_BELOW else "centroids"

    def centroids_for(self, form: TokenFormat, candidates: TokenCandidates, vectors: int) -> int:
        """Return how many centroids are wanted: none where neither the format nor the search asks for any."""
        if form not in LEVELS and candidates == "exact":
            return 0
        return self.centroids or centroids_for(vectors)
