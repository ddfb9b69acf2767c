"""Centroids of token vectors: k-means on a sample, and the nearest centroid of each vector."""

from __future__ import annotations

import math

import numpy as np

from embfit.index.inner_products import ROUNDING, inner_products

ROUNDS = 8  # of k-means; PLAID takes 4
PER_CENTROID = 64  # sampled vectors
MOST_SAMPLED = 1 << 20  # vectors: half a gigabyte at 128 dimensions
MOST = 1 << 16  # centroids: their numbers take two bytes
COMPARED = 4  # nearest centroids that are compared again, exactly


def centroids_for(vectors: int) -> int:
    """Return the number of centroids for a number of vectors: the largest power of two up to 8·√vectors.

    PLAID (Santhanam et al. 2022) uses twice as many, and the time of k-means is proportional to their number. With half
    as many as here, the proposed documents contain fewer of the best ones (docs/late-interaction-index.md, "Measured").
    """
    return int(min(MOST, 2 ** math.floor(math.log2(max(1.0, 8 * math.sqrt(vectors))))))


def sampled_for(centroids: int) -> int:
    """Return how many vectors centroids are trained on."""
    return min(MOST_SAMPLED, PER_CENTROID * centroids)


def train_centroids(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the centroids of a sample by k-means, rounded to half precision.

    Args:
        sample: [S, D] float32, finite.
        count: the number of centroids; there are fewer if the sample has fewer distinct vectors.
        seed: draws the start of k-means.

    Returns:
        [K, D] float32, all different.
    """
    import faiss  # takes a third of a second to import

    count = min(count, len(sample))
    kmeans = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=ROUNDS,
        seed=seed % (1 << 31),  # faiss takes a C int
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),  # no second, smaller sample
    )
    kmeans.train(np.ascontiguousarray(sample, np.float32))
    return np.unique(np.asarray(kmeans.centroids, np.float16), axis=0).astype(np.float32)


class NearestCentroid:
    """Finds the centroid at the least distance, which is the same for equal vectors in any position.

    Near centroids are found by matrix products, whose rounding depends on a row's position. So the nearest few are
    compared again pair by pair; if rounding could hide the nearest one among the others, all are compared.

    Args:
        centroids: [K, D] float32.
    """

    def __init__(self, centroids: np.ndarray) -> None:
        half_squares = 0.5 * np.einsum("kd,kd->k", centroids, centroids)
        self._raised = np.ascontiguousarray(np.column_stack([centroids, -half_squares]), np.float32)  # [K, D + 1]
        self._longest = float(np.linalg.norm(self._raised, axis=1).max())

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return each vector's centroid: [N, D] float32 → [N] int64.

        The distance is least where v·c - c·c/2 is greatest.
        """
        import faiss

        raised = np.column_stack([vectors, np.ones(len(vectors), np.float32)]).astype(np.float32, copy=False)
        compared = min(COMPARED, len(self._raised))
        if not len(raised):
            return np.empty(0, np.int64)
        rough, places = faiss.knn(raised, self._raised, compared, metric=faiss.METRIC_INNER_PRODUCT)  # [N, C]
        nearest = _first_of_best(inner_products(raised, self._raised, places), places)
        if compared < len(self._raised):
            tolerance = 2 * ROUNDING * raised.shape[1] * self._longest * np.linalg.norm(raised, axis=1)
            for vector in np.flatnonzero(rough[:, 0] - rough[:, -1] <= tolerance):
                everything = np.arange(len(self._raised))[None]
                products = inner_products(raised[vector : vector + 1], self._raised, everything)
                nearest[vector] = _first_of_best(products, everything)[0]
        return nearest


def _first_of_best(products: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the centroid of the greatest product, the lowest number of equal ones: [N, C] → [N]."""
    ties = products == products.max(axis=1, keepdims=True)
    lowest: np.ndarray = np.where(ties, places, np.iinfo(np.int64).max).min(axis=1)
    return lowest
