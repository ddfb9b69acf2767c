"""Each centroid's list of documents that have a vector near it, and the documents that a query's centroids propose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from embfit.index.token_vectors.storage import open_array, write, writing
from embfit.ragged import Ragged, offsets_of, take_from

DOCUMENTS, BEGINS = "postings.npy", "posting-starts.npy"
ENTRY = 4  # bytes of a document's number in a centroid's list

Pairs = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Yields parts of a segment: each vector's document, ascending, and its centroid."""


def write_postings(folder: Path, pairs: Pairs, centroids: int) -> None:
    """Write each centroid's documents, ascending and without repetitions.

    Args:
        folder: the segment's folder.
        pairs: yields the segment's vectors, in parts of whole documents. It is read twice, so memory holds only a part.
        centroids: the number of centroids.
    """
    counts = np.zeros(centroids, np.int64)
    for documents, codes in pairs():
        counts += np.bincount(_distinct(documents, codes)[1], minlength=centroids)
    begins = offsets_of(counts)
    write(folder / BEGINS, begins)
    following = begins[:-1].copy()  # where each centroid's next document goes
    with writing(folder / DOCUMENTS, "<i4", (int(begins[-1]),)) as postings:
        for documents, codes in pairs():
            some, of = _distinct(documents, codes)
            order = np.argsort(of, kind="stable")
            sizes = np.bincount(of, minlength=centroids)
            offsets = np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within a centroid's new part
            postings[following[of[order]] + offsets] = some[order]
            following += sizes


def read_postings(folder: Path) -> Ragged:
    """Open a segment's postings, memory-mapped."""
    return Ragged(open_array(folder / DOCUMENTS), np.asarray(open_array(folder / BEGINS)))


def propose(
    products: np.ndarray, postings: Sequence[Ragged], bounds: np.ndarray, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the scores of the documents that have a vector near one of the query's nearest centroids.

    For each query vector, a document gets the highest product with a probed centroid that the document has a vector
    near. Without such a centroid it gets the lowest product of the probed ones, an upper bound for all others (as in
    WARP; Scheerer et al. 2025, section 4.2).

    Args:
        products: [K, Vq] inner products of the centroids and the query's vectors.
        postings: the postings of each segment, whose documents are counted from the segment's first.
        bounds: [segments + 1] the first document of each segment.
        probes: how many of the nearest centroids propose documents, for each query vector.

    Returns:
        rows [U] of documents, ascending, and their estimated scores, summed over the query's vectors ([U]).
    """
    probes = min(probes, len(products))
    best_first = torch.from_numpy(products).topk(probes, dim=0)  # takes half the time of NumPy's argpartition
    nearest, given = (  # [Vq, P], ascending, so that the highest is written last
        np.ascontiguousarray(part.numpy()[::-1].T) for part in (best_first.indices, best_first.values)
    )
    rows, sums = [], []
    for segment, (first, end) in zip(postings, pairwise(bounds), strict=True):
        documents, starts = take_from(segment.values, segment.offsets, nearest.ravel())
        found = np.zeros(end - first, bool)
        found[documents] = True
        some = np.flatnonzero(found)
        places = np.empty(end - first, np.int32)
        places[some] = np.arange(len(some))
        best = np.repeat(given[:, :1], len(some), axis=1)  # [Vq, documents found]
        lengths = np.diff(starts)  # of each probe's list
        begins = np.repeat(np.arange(len(given)) * len(some), probes)  # of the row of each probe's query vector
        best.ravel()[np.repeat(begins, lengths) + places[documents]] = np.repeat(given.ravel(), lengths)
        rows.append(some + first)
        sums.append(best.sum(axis=0))
    return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([np.empty(0, np.float32), *sums])


def _distinct(documents: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair of document and centroid once, by document and then centroid."""
    combined = np.unique(documents.astype(np.int64) << 16 | codes)  # a centroid's number has 16 bits
    return combined >> 16, combined & 0xFFFF
