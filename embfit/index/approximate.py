"""Approximate nearest neighbours by inner product (faiss), for corpora in which an exact search takes too long.

The index keeps 8 or 16 bits a dimension and only proposes documents. The proposals are scored by their full vectors. So
scores equal those of an exact search, but the search may miss documents.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from embfit.atomic_files import replacing
from embfit.index.exact import ExactIndex
from embfit.index.files import VECTORS, read_settings, write_settings, write_vectors
from embfit.index.inner_products import best, pair_scores
from embfit.index.protocol import NOTHING, Hits, VectorIndex, check_depth, check_single
from embfit.index.rescoring import NOT_FINITE, contiguous, first_not_finite, prepare_queries
from embfit.index.token_vectors import TokenIndexing, stored_token_index, token_index_key
from embfit.progress import progress
from embfit.records import Embeddings
from embfit.store import Store, digest
from embfit.vectors import Vectors

if TYPE_CHECKING:
    import faiss

Approximation: TypeAlias = Literal["ivf", "hnsw", "int8", "bf16"]
"""Lists of near vectors, quick to build; a graph of neighbours, quick to search; a scan of all vectors at 8 or 16 bits
a dimension, which misses a document only by rounding."""

Method: TypeAlias = Literal["auto", "exact", "tokens"] | Approximation
"""How vectors are searched; `auto` decides by their number, and `tokens` is for documents of several vectors each."""

EXACT_UP_TO = 1_000_000  # documents; above, `auto` is approximate
CHUNK = 32_768  # vectors added at once
RESCORED = 256  # queries whose proposals are scored at once
OVERSHOOT = 2  # proposals for each document that is returned
PER_LIST = 40  # sampled vectors for each list, on which centroids are trained: faiss warns below 39
MOST_LISTS = 8192  # so the sample stays below half a gigabyte at 384 dimensions
PROBED = 64  # lists searched for each query, at least
LINKS = 32  # of a document in HNSW's graph
VERSION = 1  # of the stored indexes
FILE = "index.faiss"
ENTRIES = "entries.npy"  # the document of each of faiss's entries; missing where entry i is document i
GROWING = ("ivf", "hnsw")  # methods whose index is extended rather than rebuilt, which would take longer


def choose(method: Method, documents: int) -> Literal["exact", "tokens"] | Approximation:
    """Return the method for a corpus of this size, which `auto` leaves open."""
    if method != "auto":
        return method
    return "exact" if documents <= EXACT_UP_TO else "ivf"


@dataclass(frozen=True)
class ApproximateIndex:
    """A faiss index that proposes documents, and the full vectors that score them.

    Args:
        index: faiss's index.
        documents: the full vectors, one each, possibly memory-mapped.
        method: how the index finds proposals.
        source: identifies what made the vectors (`Embeddings.fingerprint`).
        seed: draws the sample that the index is trained on.
        entries: the document's row for each of faiss's entries ([E] int64), -1 if it was removed; None if entry i is
            document i.
    """

    index: faiss.Index
    documents: Vectors[np.ndarray]
    method: Approximation
    source: str = ""
    seed: int = 0
    entries: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        documents: Vectors[np.ndarray],
        method: Approximation,
        source: str = "",
        seed: int = 0,
        label: str | None = None,
    ) -> ApproximateIndex:
        """Index documents.

        Args:
            documents: their vectors, one each; read twice, in chunks.
            method: `ivf` searches the lists nearest to a query, and is quick to build; `hnsw` follows a graph, and is
                quick to search; `int8` and `bf16` scan every vector, at a quarter and at half of its memory.
            source: identifies what made the vectors.
            seed: draws the training sample.
            label: the name that progress is shown under; None shows none.

        Raises:
            ValueError: documents have several vectors each, or a vector is not finite.
        """
        import faiss  # takes a third of a second to import

        check_single(documents.single, "an approximate index")
        count = len(documents)
        lists = max(1, min(4 * math.isqrt(count), count // PER_LIST, MOST_LISTS))
        kinds = {"ivf": f"IVF{lists},SQ8", "hnsw": f"HNSW{LINKS},SQ8", "int8": "SQ8", "bf16": "SQbf16"}
        index = faiss.index_factory(documents.width, kinds[method], faiss.METRIC_INNER_PRODUCT)
        if method == "ivf":
            faiss.ParameterSpace().set_index_parameter(index, "nprobe", min(lists, max(PROBED, lists // 64)))
        elif method == "hnsw":
            faiss.ParameterSpace().set_index_parameter(index, "efConstruction", 4 * LINKS)
        sample = np.sort(np.random.default_rng(seed).permutation(count)[: max(PER_LIST * lists, 4096)])
        index.train(_finite(documents.take(sample), sample))
        _add(index, documents, np.arange(count), label)
        return cls(index, documents, method, source, seed)

    def updated(
        self, documents: Vectors[np.ndarray], rows: np.ndarray, source: str = "", label: str | None = None
    ) -> ApproximateIndex:
        """Return an index of a changed set of documents, to which new ones are added.

        The entries of removed documents stay in faiss's index, and searches skip them; `removed_share` is their share.

        Args:
            documents: vectors of all documents of the new index, one each.
            rows: the row of each in this index ([N] int64), -1 if it is new.
            source: identifies what made the vectors.
            label: the name that progress is shown under; None shows none.

        Raises:
            ValueError: a vector that is added is not finite.
        """
        import faiss

        entries = np.arange(len(self)) if self.entries is None else self.entries
        wanted, first = np.unique(rows, return_index=True)
        kept = first[wanted >= 0]  # of several documents with the same row, the first takes the entry
        place = np.full(len(self), NOTHING)
        place[rows[kept]] = kept
        added = np.setdiff1d(np.arange(len(documents)), kept)
        index = faiss.clone_index(self.index)
        _add(index, documents.take(added), added, label)
        moved = np.where(entries >= 0, place[entries], NOTHING)
        return replace(self, index=index, documents=documents, source=source, entries=np.concatenate([moved, added]))

    @property
    def removed_share(self) -> float:
        """The share of faiss's entries whose documents were removed."""
        return 0.0 if self.entries is None else float((self.entries < 0).mean())

    def removed_share_with(self, rows: np.ndarray) -> float:
        """Return the `removed_share` that `updated` with these rows would give."""
        kept = len(np.unique(rows[rows >= 0]))
        entries = int(self.index.ntotal) + len(rows) - kept
        return 1 - len(rows) / entries if entries else 0.0

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.documents)

    @property
    def fingerprint(self) -> str:
        """Identifies the documents' vectors, their dimensions, and the search."""
        grown = {} if self.entries is None else {"entries": hashlib.sha256(self.entries.tobytes()).hexdigest()}
        return digest({**_key(self.source, self.documents, self.method, self.seed), **grown})

    def search(self, queries: Vectors[np.ndarray], k: int, label: str | None = None) -> Hits:
        """Return each query's k documents, sorted by (-score, row).

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64; row -1 and score 0 where fewer were found.

        Raises:
            ValueError: k is not between 1 and the number of documents, the widths differ, or a query is not finite.
        """
        check_depth(k, len(self))
        queries, _ = prepare_queries(queries, self.documents.width)
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        with progress(label, total=len(queries), unit="queries") as advance:
            for start, block in queries.chunks(RESCORED):
                some = slice(start, start + len(block))
                scores[some], rows[some] = self._rescored(block, k)
                advance(len(block))
        return scores, rows

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the exact scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""
        return pair_scores(queries, self.documents, rows)

    def save(self, folder: Path) -> None:
        """Write the index and the vectors into a folder."""
        import faiss

        with replacing(folder / FILE) as path:
            faiss.write_index(self.index, str(path))
        if self.entries is not None:
            with replacing(folder / ENTRIES) as path, path.open("wb") as file:
                np.save(file, self.entries)
        write_vectors(folder, self.documents)
        write_settings(folder, "approximate", {"method": self.method, "source": self.source, "seed": self.seed})

    @classmethod
    def load(cls, folder: Path) -> ApproximateIndex:
        """Open a saved index; its vectors are memory-mapped."""
        import faiss

        settings = read_settings(folder)
        index = faiss.read_index(str(folder / FILE))
        entries = np.load(folder / ENTRIES) if (folder / ENTRIES).is_file() else None
        vectors = Vectors.open(folder / VECTORS)
        return cls(index, vectors, settings["method"], settings["source"], settings["seed"], entries)

    def _rescored(self, queries: Vectors[np.ndarray], k: int) -> Hits:
        wanted = min(OVERSHOOT * k, len(self))
        _, found = self.index.search(queries.rows, wanted, params=self._parameters(wanted))  # [Q, wanted]
        if self.entries is not None:
            found = np.where(found == NOTHING, NOTHING, self.entries[found])
        scores, rows = best(self.score(queries, found), found, k)
        return np.where(rows == NOTHING, np.float32(0), scores), rows

    def _parameters(self, wanted: int) -> Any:
        """Return faiss's parameters of one search, so that threads with other depths can share the index."""
        import faiss

        library: Any = faiss  # its type stubs lack these classes
        selector = {} if self._selector is None else {"sel": self._selector}
        if self.method == "hnsw":
            return library.SearchParametersHNSW(efSearch=max(2 * wanted, 4 * LINKS), **selector)
        if self.method == "ivf":
            index: Any = self.index
            return library.SearchParametersIVF(nprobe=index.nprobe, **selector)
        return library.SearchParameters(**selector)

    @cached_property
    def _selector(self) -> Any:
        """The filter by which faiss skips removed entries; None if there are none."""
        if self.entries is None or not self.removed_share:
            return None
        import faiss

        library: Any = faiss  # its type stubs have the C++ arguments
        return library.IDSelectorBitmap(np.packbits(self.entries >= 0, bitorder="little"))


def _add(index: faiss.Index, documents: Vectors[np.ndarray], rows: np.ndarray, label: str | None) -> None:
    """Add vectors to faiss's index, in chunks.

    Args:
        index: the index to add to.
        documents: their vectors, one each.
        rows: [N] the documents' rows, for messages.
        label: the name that progress is shown under; None shows none.

    Raises:
        ValueError: a vector is not finite. faiss would accept it, and never propose its document.
    """
    with progress(label, total=len(documents), unit="documents") as advance:
        for start, chunk in documents.chunks(CHUNK):
            index.add(_finite(chunk, rows[start : start + len(chunk)]))
            advance(len(chunk))


def _finite(documents: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Check that documents' vectors are finite, and return them as contiguous rows ([N, D] float32).

    Args:
        documents: their vectors, one each.
        rows: [N] the documents' rows, for messages.

    Raises:
        ValueError: a vector is not finite.
    """
    read = contiguous(documents)
    if (place := first_not_finite(read)) is not None:
        raise ValueError(NOT_FINITE.format(rows[place], "documents"))
    return read.rows


def search_key(method: Method, documents: int) -> dict[str, Any]:
    """Return all that a search's results depend on besides the vectors and the seed, for the store's keys."""
    import faiss

    chosen = choose(method, documents)
    if chosen == "exact":
        return {"search": chosen}
    if chosen == "tokens":
        return token_index_key(TokenIndexing())
    sizes = {"per_list": PER_LIST, "most_lists": MOST_LISTS, "probed": PROBED, "links": LINKS, "overshoot": OVERSHOOT}
    return {"search": chosen, **sizes, "faiss": faiss.__version__}


def open_index(documents: Embeddings, method: Method, store: Store, seed: int = 0) -> VectorIndex:
    """Return an index of the vectors; if the method needs one that the store does not have, build it.

    Args:
        documents: the documents' vectors; with several each, `auto` is exact.
        method: how they are searched.
        store: keeps the index by the vectors' fingerprint.
        seed: draws the sample that an index is trained on.

    Raises:
        ValueError: the method is an approximation and documents have several vectors each, or it is `tokens` and they
            have one.
    """
    import faiss

    vectors, source = documents.vectors, documents.fingerprint
    chosen = choose(method, len(vectors))
    if chosen == "exact" or (method == "auto" and not vectors.single):
        return ExactIndex(vectors, source)
    if chosen == "tokens":
        if vectors.single:
            raise ValueError("search=tokens is for several vectors a document, and these have one; set search=auto")
        return stored_token_index(documents, TokenIndexing(seed=seed), store)

    def build(folder: Path) -> None:
        built = ApproximateIndex.build(vectors, chosen, source, seed, "indexing")
        faiss.write_index(built.index, str(folder / FILE))  # the vectors are in the store already

    folder = store.entry("indexes", _key(source, vectors, chosen, seed), build, version=VERSION)
    return ApproximateIndex(faiss.read_index(str(folder / FILE)), vectors, chosen, source, seed)


def _key(source: str, documents: Vectors[np.ndarray], method: Approximation, seed: int) -> dict[str, Any]:
    cut = {} if documents.dim is None else {"dim": documents.dim}
    return {"vectors": source, **cut, **search_key(method, len(documents)), "seed": seed}
