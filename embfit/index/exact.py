"""Exact nearest neighbours, over vectors that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embfit.cluster import current_cluster
from embfit.index.distributed_search import SPREAD_FROM, search_spread
from embfit.index.files import VECTORS, read_settings, write_settings, write_vectors
from embfit.index.inner_products import ROUNDING, inner_products, pair_scores
from embfit.index.protocol import NOTHING, Hits, check_depth
from embfit.index.rescoring import (
    SCORES,
    add_best_of_several,
    contiguous,
    longest_vectors,
    merge,
    prepare_queries,
    roundings,
)
from embfit.progress import progress
from embfit.store import digest
from embfit.vectors import LOWEST, Vectors

CHUNK = 32_768  # vectors searched at once: bounds the wait for a Ctrl-C and the memory of a conversion to float32
SPARE = 16  # candidates beyond k: ties at the last rank seldom extend further


class ExactIndex:
    """An exhaustive search: every vector is compared with every query, and the vectors are not copied.

    A query's hits depend only on the vectors, not on the other queries or on a document's position. Candidates come
    from matrix products, whose rounding depends on both, and of tied documents faiss returns arbitrary ones. So
    candidates are scored again pair by pair. If rounding could let a document outside the candidates tie with the last
    hit, all such documents are scored too.

    Args:
        documents: the vectors, one or several a document, possibly memory-mapped. A search reads them once, in chunks,
            whatever the number of queries. The first search checks that they are finite.
        source: identifies what made the vectors (`Embeddings.fingerprint`).
    """

    def __init__(self, documents: Vectors[np.ndarray], source: str = "") -> None:
        self.documents = documents
        self.source = source
        self._longest: dict[int, float] = {}  # length of the longest vector in the chunk that begins with a document

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.documents)

    @property
    def fingerprint(self) -> str:
        """Identifies the documents' vectors, their dimensions, and the search."""
        return digest({"search": "exact", "vectors": self.source, "dim": self.documents.width})

    def search(self, queries: Vectors[np.ndarray], k: int, label: str | None = None) -> Hits:
        """Return each query's k documents of highest score, sorted by (-score, row).

        Args:
            queries: Q texts' vectors.
            k: documents per query, at most N. Documents without vectors are not found; empty places have row -1.
            label: the name that progress is shown under; None shows none.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64.

        Raises:
            ValueError: k is not between 1 and N, the widths differ, or a vector is not finite.
        """
        check_depth(k, len(self))
        queries, lengths = prepare_queries(queries, self.documents.width)
        found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if not len(queries):
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        cluster = current_cluster()
        if cluster is not None and len(queries.rows) * len(self.documents.rows) >= SPREAD_FROM:
            found = search_spread(self.documents, queries, k, _search, cluster, label)
        else:
            with progress(label, total=len(self), unit="documents") as advance:
                for start, chunk, longest in self._chunks():
                    tolerance = 2 * ROUNDING * roundings(queries) * lengths * longest  # [Q]
                    if queries.single and chunk.single:
                        found = _add(found, queries.rows, chunk.rows, start, k, tolerance)
                    else:
                        found = add_best_of_several(found, queries, chunk, start, k, tolerance)
                    advance(len(chunk))
        scores, rows = found
        lacking = scores == LOWEST  # documents without vectors
        return np.where(lacking, np.float32(0), scores), np.where(lacking, NOTHING, rows)

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""
        return pair_scores(queries, self.documents, rows)

    def save(self, folder: Path) -> None:
        """Write the vectors into a folder.

        Raises:
            ValueError: a vector is not finite.
        """
        for _ in self._chunks():
            pass  # iterating checks every vector
        write_vectors(folder, self.documents)
        write_settings(folder, "exact", {"source": self.source})

    @classmethod
    def load(cls, folder: Path) -> ExactIndex:
        """Open a saved index; its vectors are memory-mapped."""
        return cls(Vectors.open(folder / VECTORS), read_settings(folder)["source"])

    def _chunks(self) -> Iterator[tuple[int, Vectors[np.ndarray], float]]:
        """Yield the documents in chunks, with the row of the first and the length of the longest vector."""
        for start, chunk in self.documents.chunks(CHUNK):
            read = contiguous(chunk)
            if start not in self._longest:  # checked once: it takes nearly as long as searching for one query
                self._longest[start] = float(longest_vectors(read, "documents", start).max(initial=0))
            yield start, read, self._longest[start]


def _search(documents: Vectors[np.ndarray], queries: Vectors[np.ndarray], k: int) -> Hits:
    """Search some documents on a worker of a cluster."""
    return ExactIndex(documents).search(queries, k)


def _add(found: Hits, queries: np.ndarray, chunk: np.ndarray, start: int, k: int, tolerance: np.ndarray) -> Hits:
    """Merge the hits of earlier documents ([Q, up to k], sorted) with a chunk, where texts have one vector.

    Args:
        found: the scores and rows of the earlier hits.
        queries: [Q, D] vectors.
        chunk: [N, D] vectors of the documents.
        start: the row of the first document.
        k: how many documents are kept.
        tolerance: [Q] the most by which rounding can separate two scores of one pair.
    """
    import faiss  # takes a third of a second to import

    wanted = min(k + SPARE, len(chunk))
    rough, places = faiss.knn(queries, chunk, wanted, metric=faiss.METRIC_INNER_PRODUCT)  # [Q, wanted]
    if found[0].shape[1] == k:
        places[rough < found[0][:, -1:] - tolerance[:, None]] = NOTHING  # too low for the first k
    merged = merge(found, inner_products(queries, chunk, places), places, start, k)
    if wanted == len(chunk):
        return merged
    scores, rows = merged
    incomplete = np.flatnonzero(rough.min(axis=1) + tolerance >= scores[:, -1])  # a document not fetched may belong
    step = max(1, SCORES // len(chunk))
    for first in range(0, len(incomplete), step):
        some = incomplete[first : first + step]
        for query, full in zip(some, queries[some] @ chunk.T, strict=True):
            one = slice(query, query + 1)
            near = np.flatnonzero(full >= scores[query, -1] - tolerance[query])[None]  # [1, possible top-k documents]
            before = found[0][one], found[1][one]
            scores[one], rows[one] = merge(before, inner_products(queries[one], chunk, near), near, start, k)
    return scores, rows
