"""Token pooling: similar token vectors of a document are merged into one (Clavié, Chaffin and Adams 2024)."""

from __future__ import annotations

import numpy as np

from embfit.ragged import offsets_of
from embfit.vectors import Vectors, unit_length


def pooled_counts(counts: np.ndarray, factor: int, protected: int) -> np.ndarray:
    """Return how many vectors documents have after pooling: one in `factor`, rounded up, and the protected ones."""
    kept = np.minimum(counts, protected)
    found: np.ndarray = kept - (-(counts - kept) // factor)
    return found


def pool(documents: Vectors[np.ndarray], factor: int, protected: int) -> Vectors[np.ndarray]:
    """Cluster each document's vectors by Ward's method and return the clusters' means, normalised.

    Args:
        documents: vectors of length 1.
        factor: how many vectors are merged into one, on average; 1 returns the documents unchanged.
        protected: how many of a document's first vectors stay unchanged: [CLS] and the marker represent the whole text.

    Returns:
        the documents with `pooled_counts` vectors each, clusters in the order of their first vectors.
    """
    if factor == 1:
        return documents
    counts = pooled_counts(documents.counts, factor, protected)
    starts = offsets_of(counts)
    rows = np.empty((int(starts[-1]), documents.width), np.float32)
    for document in range(len(documents)):
        vectors = np.asarray(documents.part(document, document + 1).flat(), np.float32)
        kept = min(len(vectors), protected)
        to = rows[starts[document] : starts[document + 1]]
        to[:kept] = vectors[:kept]
        if len(to) > kept:
            to[kept:] = _means(vectors[kept:], len(to) - kept)
    return Vectors(rows, starts)


def _means(vectors: np.ndarray, clusters: int) -> np.ndarray:
    """Return the normalised means of a number of clusters: [N, D] → [clusters, D]."""
    if clusters == len(vectors):
        return vectors
    from scipy.cluster.hierarchy import linkage  # takes a third of a second to import

    members = {number: [number] for number in range(len(vectors))}
    merges = linkage(vectors, "ward")[: len(vectors) - clusters, :2].astype(int)  # the nearest clusters first
    for number, (first, second) in enumerate(merges.tolist(), start=len(vectors)):
        members[number] = sorted(members.pop(first) + members.pop(second))
    in_order = sorted(members.values())
    return unit_length(np.stack([vectors[some].mean(axis=0) for some in in_order]))
