"""Approximate nearest neighbours by inner product (faiss), for corpora that an exact search takes too long for.

The index keeps 8 bits a dimension. It only proposes: the inner products of what it proposes are computed from the
vectors themselves, so scores are those of an exact search, and what is lost are documents, not digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import faiss
import numpy as np

from embfit.index import exact
from embfit.index.inner_products import best, inner_products
from embfit.progress import progress
from embfit.records import Embeddings
from embfit.store import Store

Method: TypeAlias = Literal["auto", "exact", "ivf", "hnsw"]

Search: TypeAlias = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Queries [Q, D] and k → scores [Q, k] and rows [Q, k]."""

EXACT_UP_TO = 1_000_000  # documents; above, `auto` is approximate
CHUNK = 32_768  # vectors added at once
RESCORED = 256  # queries whose proposals are scored at once
OVERSHOOT = 2  # proposals for each document wanted
PER_LIST = 40  # vectors of the sample that centroids are trained on, for each list: faiss warns below 39
MOST_LISTS = 8192  # so the sample stays below half a gigabyte at 384 dimensions
PROBED = 64  # lists looked at for each query, at least
LINKS = 32  # of a document in HNSW's graph
VERSION = 1  # of the store's indexes
FILE = "index.faiss"


def choose(method: Method, documents: int) -> Method:
    """Return what `auto` means for a corpus of that size."""
    if method != "auto":
        return method
    return "exact" if documents <= EXACT_UP_TO else "ivf"


@dataclass(frozen=True)
class ApproximateIndex:
    """An index over a matrix, which stays where it is.

    Args:
        index: faiss's.
        documents: [N, D] floats, possibly memory-mapped.
    """

    index: faiss.Index
    documents: np.ndarray

    @classmethod
    def build(cls, documents: np.ndarray, method: Literal["ivf", "hnsw"], seed: int = 0) -> ApproximateIndex:
        """Index documents.

        Args:
            documents: [N, D] floats; read twice, in chunks.
            method: `ivf` looks into the lists nearest to a query, and is quick to build; `hnsw` follows a graph, and is
                quick to search.
            seed: of the sample that is trained on.
        """
        count, width = documents.shape
        lists = max(1, min(4 * math.isqrt(count), count // PER_LIST, MOST_LISTS))
        kind = f"IVF{lists},SQ8" if method == "ivf" else f"HNSW{LINKS},SQ8"
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        if method == "ivf":
            faiss.ParameterSpace().set_index_parameter(index, "nprobe", min(lists, max(PROBED, lists // 64)))
        else:
            faiss.ParameterSpace().set_index_parameter(index, "efConstruction", 4 * LINKS)
        sample = np.sort(np.random.default_rng(seed).permutation(count)[: max(PER_LIST * lists, 4096)])
        index.train(np.ascontiguousarray(documents[sample], np.float32))
        with progress("indexing", total=count, unit="documents") as advance:
            for start in range(0, count, CHUNK):
                chunk = np.ascontiguousarray(documents[start : start + CHUNK], np.float32)
                index.add(chunk)
                advance(len(chunk))
        return cls(index, documents)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each query's k documents, sorted by (-score, row).

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64; row -1 and score 0 where fewer were found.

        Raises:
            ValueError: k is not between 1 and the number of documents.
        """
        if not 1 <= k <= len(self.documents):
            raise ValueError(f"k={k} is not between 1 and the index's {len(self.documents)} documents")
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        with progress("searching", total=len(queries), unit="queries") as advance:
            for start in range(0, len(queries), RESCORED):
                some = slice(start, start + RESCORED)
                block = np.ascontiguousarray(queries[some], np.float32)
                scores[some], rows[some] = self._rescored(block, k)
                advance(len(block))
        return scores, rows

    def _rescored(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = min(OVERSHOOT * k, len(self.documents))
        if isinstance(self.index, faiss.IndexHNSW):
            faiss.ParameterSpace().set_index_parameter(self.index, "efSearch", max(2 * wanted, 4 * LINKS))
        _, found = self.index.search(queries, wanted)  # [Q, wanted]
        unique = np.unique(found)
        vectors = np.asarray(self.documents[unique], np.float32)  # row -1, where nothing was found, is any
        places = np.searchsorted(unique, found)
        scores, rows = best(inner_products(queries, vectors, np.where(found < 0, found, places)), found, k)
        return np.where(rows < 0, 0, scores), rows


def search_key(method: Method, documents: int) -> dict[str, Any]:
    """Return what a search's results depend on besides the vectors and the seed, for keys of the store."""
    chosen = choose(method, documents)
    if chosen == "exact":
        return {"search": chosen}
    sizes = {"per_list": PER_LIST, "most_lists": MOST_LISTS, "probed": PROBED, "links": LINKS, "overshoot": OVERSHOOT}
    return {"search": chosen, **sizes, "faiss": faiss.__version__}


def searcher(vectors: Embeddings, method: Method, store: Store, seed: int = 0) -> Search:
    """Return what searches vectors; an index is built now, if the method wants one that the store does not have.

    Args:
        vectors: of documents.
        method: of the search.
        store: keeps the index under the vectors' fingerprint.
        seed: of the sample that an index is trained on.
    """
    documents = vectors.vectors.rows
    chosen = choose(method, len(documents))
    if chosen not in ("ivf", "hnsw"):
        return lambda queries, k: exact.search(queries, documents, k)

    def build(folder: Path) -> None:
        faiss.write_index(ApproximateIndex.build(documents, chosen, seed).index, str(folder / FILE))

    key = {"vectors": vectors.fingerprint, **search_key(method, len(documents)), "seed": seed}
    folder = store.entry("indexes", key, build, version=VERSION)
    return ApproximateIndex(faiss.read_index(str(folder / FILE)), documents).search
