"""A search in two stages: the first dimensions of all vectors find a shortlist, and the whole vectors rank it.

The first dimensions are in memory, in one of `compressed`'s formats. The whole vectors are memory-mapped, and a search
reads only those of the shortlist. This is the funnel of Kusupati et al. 2022, "Matryoshka Representation Learning",
section 4.3; `evaluator.funnel` measures its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embfit.index.compressed import CompressedIndex, Format
from embfit.index.files import VECTORS, read_settings, write_settings, write_vectors
from embfit.index.inner_products import best, pair_scores
from embfit.index.protocol import Hits, check_depth
from embfit.index.rescoring import prepare_queries
from embfit.progress import progress
from embfit.store import digest
from embfit.vectors import Vectors

QUERIES = 256  # queries whose shortlists are ranked at once


@dataclass(frozen=True)
class FunnelIndex:
    """Small vectors that find a shortlist, and the whole vectors that rank it.

    Scores equal those of an exact search, but a document that is not on the shortlist is missed.

    Args:
        small: the first dimensions of every vector.
        documents: the whole vectors, one each, possibly memory-mapped.
        shortlist: how many documents the small vectors find for a query; a search for more documents finds as many.
        source: identifies what made the vectors (`Embeddings.fingerprint`).
    """

    small: CompressedIndex
    documents: Vectors[np.ndarray]
    shortlist: int
    source: str = ""

    @classmethod
    def build(
        cls, documents: Vectors[np.ndarray], dims: int, form: Format, shortlist: int, source: str = ""
    ) -> FunnelIndex:
        """Convert the first dimensions of the vectors, which are read once, in chunks.

        Args:
            documents: one vector each.
            dims: how many dimensions are searched.
            form: how these are stored.
            shortlist: how many documents they find.
            source: identifies what made the vectors.

        Raises:
            ValueError: documents have several vectors each or fewer dimensions, or a vector is not finite.
        """
        return cls(CompressedIndex.build(documents.cut(dims), form, source), documents, shortlist, source)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.documents)

    @property
    def fingerprint(self) -> str:
        """Identifies the documents' vectors, their dimensions, and both stages of the search."""
        first = self.small.fingerprint
        return digest({"search": "funnel", "first": first, "dim": self.documents.width, "shortlist": self.shortlist})

    def search(self, queries: Vectors[np.ndarray], k: int, label: str | None = None) -> Hits:
        """Return each query's k documents, sorted by (-score, row).

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64.

        Raises:
            ValueError: k is not between 1 and the number of documents, the widths differ, or a query is not finite.
        """
        check_depth(k, len(self))
        queries, _ = prepare_queries(queries, self.documents.width)
        wanted = min(max(k, self.shortlist), len(self))
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        with progress(label, total=len(queries), unit="queries") as advance:
            for start, block in queries.chunks(QUERIES):
                some = slice(start, start + len(block))
                _, found = self.small.search(block.cut(self.small.width), wanted)  # [q, wanted]
                scores[some], rows[some] = best(self.score(block, found), found, k)
                advance(len(block))
        return scores, rows

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the exact scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""
        return pair_scores(queries, self.documents, rows)

    def save(self, folder: Path) -> None:
        """Write both kinds of vectors into a folder."""
        self.small.write_codes(folder)
        write_vectors(folder, self.documents)
        settings = {"format": self.small.form, "dims": self.small.width, "shortlist": self.shortlist}
        write_settings(folder, "funnel", {**settings, "source": self.source})

    @classmethod
    def load(cls, folder: Path) -> FunnelIndex:
        """Open a saved index; the whole vectors are memory-mapped."""
        settings = read_settings(folder)
        small = CompressedIndex.read_codes(folder, settings["format"], settings["dims"], settings["source"])
        return cls(small, Vectors.open(folder / VECTORS), settings["shortlist"], settings["source"])
