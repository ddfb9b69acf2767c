"""An exact search by the workers of a cluster, each over some of the documents; the hits equal those of one machine.

Documents are cut into parts by row, independently of the number of workers, and each part is sent when it is searched:
no machine has to hold them all. A part's hits do not depend on the other parts, and are merged by (-score, row).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embfit.cluster import Cluster, Do
from embfit.index.inner_products import best
from embfit.index.protocol import NOTHING, Hits
from embfit.index.rescoring import contiguous, longest_vectors
from embfit.progress import progress
from embfit.vectors import LOWEST, Vectors

PART_VECTORS = 1 << 16  # vectors in a part: 100 MB at 384 dimensions
SPREAD_FROM = 1 << 30  # products of two vectors, some seconds of one core; below, sending costs more than it saves


@dataclass(frozen=True)
class SearchWork:
    """A worker's search.

    Args:
        queries: the vectors of all queries.
        k: how many documents to return for each.
        search: searches some documents; its k is at most their number.
    """

    queries: Vectors[np.ndarray]
    k: int
    search: Callable[[Vectors[np.ndarray], Vectors[np.ndarray], int], Hits]

    def prepare(self, device: str) -> Do:
        """Return the function that searches a part's documents; it uses the CPU, whatever the device."""
        return lambda documents: self.search(documents, self.queries, min(self.k, len(documents)))


def search_spread(
    documents: Vectors[np.ndarray],
    queries: Vectors[np.ndarray],
    k: int,
    search: Callable[[Vectors[np.ndarray], Vectors[np.ndarray], int], Hits],
    cluster: Cluster,
    label: str | None = None,
) -> Hits:
    """Return each query's k documents of highest score: scores and rows [Q, k], sorted by (-score, row).

    Args:
        documents: the vectors of N documents, possibly memory-mapped.
        queries: the vectors of Q queries, as `contiguous` returns them.
        k: how many documents to return for each query, at most N.
        search: a module-level function that searches some documents; row -1 where it finds fewer.
        cluster: the workers.
        label: the name that progress is shown under; None shows none.

    Raises:
        ValueError: a document's vector is not finite.
        UserError: the workers are lost.
    """
    parts = list(documents.chunks(PART_VECTORS))

    def part_of_documents(number: int) -> Vectors[np.ndarray]:
        start, part = parts[number]
        read = contiguous(part)
        longest_vectors(read, "documents", start)  # checks them, and reports rows of the whole corpus
        return read

    scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    with progress(label, len(documents), "documents") as advance:
        for number, (found, places) in cluster.spread(
            SearchWork(queries, k, search), part_of_documents, range(len(parts))
        ):
            start, part = parts[number]
            lacking = places == NOTHING
            found, places = np.where(lacking, LOWEST, found), np.where(lacking, NOTHING, places + start)
            scores, rows = best(np.concatenate([scores, found], 1), np.concatenate([rows, places], 1), k)
            advance(len(part))
    return scores, rows
