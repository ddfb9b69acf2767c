"""An index of token vectors: encoded, in files that are mapped, searched by MaxSim and changed without a rebuild.

Documents are addressed by row. What is added gets the rows after the last; what is deleted leaves its row empty until
`compact` closes the gaps. A change writes new files beside the old ones and the manifest last, so whatever happens in
between leaves the index as it was. Objects keep showing what they opened: a change returns a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from embfit.index.inner_products import ROUNDING, Matches, best_matches
from embfit.index.protocol import NOTHING, Hits, check_depth
from embfit.index.rescoring import add_best_of_several, longest_vectors, readable, roundings
from embfit.index.token_vectors.changes import add, build, check_source, compact, copy, delete
from embfit.index.token_vectors.codec import TokenCodec
from embfit.index.token_vectors.codec_files import read_codec
from embfit.index.token_vectors.manifest import Manifest
from embfit.index.token_vectors.postings import propose
from embfit.index.token_vectors.segment import CHUNK, Segment
from embfit.index.token_vectors.settings import EXACT_BELOW, TokenIndexing
from embfit.index.token_vectors.storage import check_contents, check_sizes, opened
from embfit.progress import progress
from embfit.ragged import offsets_of
from embfit.store import digest
from embfit.vectors import LOWEST, Vectors

OUTGROWN = 4  # times as many vectors as the codec was fitted to: twice as many centroids would be right


class TokenIndex:
    """Documents of several vectors each, searched by MaxSim.

    A document's score is the mean over the query's vectors of the highest inner product with one of the document's
    vectors, as the format keeps them. Equal documents have equal scores, whatever is asked beside them.

    Args:
        folder: of the index's files.
        manifest: what it is made of.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        check_sizes(folder, manifest.files)
        self.folder = folder
        self.manifest = manifest
        self.settings = manifest.settings
        self.codec = read_codec(folder, manifest)
        proposing = manifest.candidates == "centroids"
        self._segments = [Segment.open(folder / segment.name, proposing) for segment in manifest.segments]
        self._bounds = offsets_of([len(segment) for segment in self._segments])
        self._alive = np.ones(manifest.documents, bool)
        if manifest.deleted is not None:
            self._alive[opened(folder / manifest.deleted)] = False

    @classmethod
    def build(
        cls,
        documents: Vectors[np.ndarray],
        folder: Path,
        settings: TokenIndexing | None = None,
        source: str = "",
        codec: TokenCodec | None = None,
        label: str | None = None,
    ) -> TokenIndex:
        """Write an index into a folder, in the place of one that is there.

        Args:
            documents: their vectors, possibly memory-mapped; a sample is read, then all, in parts.
            folder: where it is to be; made if missing.
            settings: how vectors are kept and searched; None for the defaults.
            source: identifies what made the vectors; only vectors of the same source can be added.
            codec: one that was fitted before, as to documents that these replace; None fits one.
            label: the name that progress is shown under; None shows none.

        Raises:
            ValueError: a vector is not finite or not of length 1 where the format needs that, or there are too few
                vectors for the format.
            OSError: the disk is full. Whatever happens, the index that was there stays until the new one is whole.
        """
        return cls(folder, build(documents, folder, settings or TokenIndexing(), source, codec, label))

    @classmethod
    def load(cls, folder: Path, source: str | None = None) -> TokenIndex:
        """Open an index; its vectors are memory-mapped.

        Args:
            folder: where it is.
            source: what its vectors must have been made by; None takes whatever made them.

        Raises:
            UserError: there is no index, a file is missing or cut short, or the vectors are another model's.
        """
        manifest = Manifest.read(folder)
        if source is not None:
            check_source(folder, manifest, source)
        return cls(folder, manifest)

    def __len__(self) -> int:
        """Return the number of documents, without deleted ones."""
        return int(self._alive.sum())

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows of the documents, ascending; deleted ones are missing ([len(self)] int64)."""
        return np.flatnonzero(self._alive)

    @property
    def fingerprint(self) -> str:
        """Identifies the stored vectors, which documents are deleted, and the search."""
        manifest, settings = self.manifest, self.settings
        by_centroids = {"shortlist": settings.shortlist, "probes": settings.probes}
        return digest(
            {
                "search": "tokens",
                "vectors": manifest.source,
                "format": manifest.form,
                "candidates": by_centroids if manifest.candidates == "centroids" else "exact",
                "files": [facts.sha256 for facts in manifest.files.values()],
            }
        )

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of a stored vector, its centroid's number counted and postings not."""
        return self.codec.width

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(facts.bytes for facts in self.manifest.files.values())

    @property
    def outgrown(self) -> bool:
        """Whether the index holds so much more than it was built for that it should be built anew."""
        manifest = self.manifest
        unfitted = manifest.candidates == "exact" and self.settings.candidates == "auto"
        if self.codec.centroids is None:
            return unfitted and len(self) >= EXACT_BELOW
        return manifest.vectors > OUTGROWN * manifest.fitted

    def search(
        self, queries: Vectors[np.ndarray], k: int, label: str | None = None, among: np.ndarray | None = None
    ) -> Hits:
        """Return each query's k documents of highest score, sorted by (-score, row).

        Args:
            queries: Q texts' vectors.
            k: documents per query, at most `len(self)`.
            label: the name that progress is shown under; None shows none.
            among: [Q, S] rows that another search proposes for each query, such as BM25's; negative ones are no
                document. None lets the index choose its candidates itself.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64; row -1 and score 0 where fewer documents were candidates.

        Raises:
            ValueError: k is not between 1 and the number of documents, the widths differ, a query is not finite, or
                `among` has a row beyond the last.
        """
        check_depth(k, len(self))
        asked, lengths = self._asked(queries)
        if among is not None:
            self._check_rows(among)
        elif self.manifest.candidates == "exact":
            return self._search_all(asked, lengths, k, label)
        scores = np.zeros((len(asked), k), np.float32)
        rows = np.full((len(asked), k), NOTHING, np.int64)
        with progress(label, total=len(asked), unit="queries") as advance:
            for query in range(len(asked)):
                one = asked.part(query, query + 1)
                candidates = self._proposed(one, max(k, self.settings.shortlist)) if among is None else among[query]
                found, found_rows = self._best_among(one, lengths[query : query + 1], self._present(candidates), k)
                scores[query, : len(found)], rows[query, : len(found)] = found, found_rows
                advance()
        return scores, rows

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative or deleted.

        Raises:
            ValueError: the widths differ, a query is not finite, or a row is beyond the last.
        """
        asked, _ = self._asked(queries)
        self._check_rows(rows)
        scores = np.full(rows.shape, LOWEST, np.float32)
        for query, chosen in enumerate(rows):
            present = self._present(chosen)
            found = best_matches(asked.part(query, query + 1), self._stored(present)).scores
            known = np.isin(chosen, present)
            scores[query, known] = found[np.searchsorted(present, chosen[known])]
        return scores

    def matches(self, query: Vectors[np.ndarray], rows: np.ndarray) -> Matches:
        """Return which stored vector of each document each of a query's vectors finds.

        Positions count a document's stored vectors. Where vectors were pooled those are no longer tokens: encode the
        document again to show its words. The mean of a document's similarities is its score.

        Args:
            query: one text.
            rows: [K] of documents.

        Raises:
            ValueError: the widths differ, the query is not finite, or there is no document of a row.
        """
        return best_matches(self._asked(query)[0], self.vectors(rows))

    def vectors(self, rows: np.ndarray) -> Vectors[np.ndarray]:
        """Return the vectors of documents as the format keeps them, float32, in the order of the rows.

        Raises:
            ValueError: there is no document of a row.
        """
        self._check_rows(rows)
        present = self._present(rows)
        if (missing := ~np.isin(rows, present)).any():
            raise ValueError(f"the index has no document of row {rows[missing][0]}: it is deleted or negative")
        return self._stored(present).take(np.searchsorted(present, rows))

    def add(self, documents: Vectors[np.ndarray], source: str = "", label: str | None = None) -> TokenIndex:
        """Write further documents, which get the rows after the last, and return the index with them.

        They are encoded as those before them; `outgrown` says when the index should be built anew.

        Args:
            documents: their vectors.
            source: identifies what made them.
            label: the name that progress is shown under; None shows none.

        Raises:
            UserError: the vectors are another model's, or the index was changed since it was opened.
            ValueError: the widths differ, a vector is not finite, or it is not what the format can keep.
        """
        return TokenIndex(self.folder, add(self.folder, self.manifest, self.codec, documents, source, label))

    def delete(self, rows: np.ndarray) -> TokenIndex:
        """Mark documents as deleted and return the index without them; the others keep their rows.

        Raises:
            UserError: the index was changed since it was opened.
            ValueError: there is no document of a row.
        """
        self._check_rows(rows)
        if (absent := ~np.isin(rows, self.rows)).any():
            raise ValueError(f"the index has no document of row {rows[absent][0]}: it is deleted or negative")
        alive = self._alive.copy()
        alive[rows] = False
        return TokenIndex(self.folder, delete(self.folder, self.manifest, np.flatnonzero(~alive)))

    def compact(self) -> TokenIndex:
        """Write the documents that are left as one part and return that index.

        The document of row `rows[i]` gets row i. The files are those that a build of these documents with the same
        codec would write.

        Raises:
            UserError: the index was changed since it was opened.
        """
        kept = [
            (segment, np.flatnonzero(self._alive[first:end]))
            for segment, (first, end) in zip(self._segments, pairwise(self._bounds), strict=True)
        ]
        return TokenIndex(self.folder, compact(self.folder, self.manifest, self.codec, kept))

    def save(self, folder: Path) -> None:
        """Copy the index into another folder, in the place of one that is there."""
        copy(self.folder, self.manifest, folder)

    def verify(self) -> None:
        """Hold every file to the digest that was recorded when it was written; this reads them all.

        Raises:
            UserError: a file has another content.
        """
        check_contents(self.folder, self.manifest.files)

    def _asked(self, queries: Vectors[np.ndarray]) -> tuple[Vectors[np.ndarray], np.ndarray]:
        """Return the queries as they are compared, and the length of each one's longest vector."""
        if queries.width != self.manifest.dim:
            raise ValueError(
                f"queries of {queries.width} dimensions and documents of {self.manifest.dim} differ in width"
            )
        asked = readable(queries)
        return asked, longest_vectors(asked, "queries", 0)

    def _check_rows(self, rows: np.ndarray) -> None:
        if rows.size and rows.max() >= len(self._alive):
            raise ValueError(f"row {rows.max()} is beyond the index's last row {len(self._alive) - 1}")

    def _present(self, rows: np.ndarray) -> np.ndarray:
        """Return those rows that have a document, ascending and each once."""
        unique = np.unique(rows[rows >= 0])
        return unique[self._alive[unique]]

    def _stored(self, rows: np.ndarray) -> Vectors[np.ndarray]:
        """Return the decoded vectors of documents whose rows ascend."""
        parts = [
            segment.take(rows[(rows >= first) & (rows < end)] - first)
            for segment, (first, end) in zip(self._segments, pairwise(self._bounds), strict=True)
        ]
        counts = np.concatenate([np.empty(0, np.int64), *(np.diff(part.starts) for part in parts)])
        packed = np.concatenate([np.empty((0, self.codec.width), np.uint8), *(part.packed for part in parts)])
        return Vectors(self.codec.decode(packed), offsets_of(counts))

    def _proposed(self, query: Vectors[np.ndarray], most: int) -> np.ndarray:
        """Return the rows of the documents that the centroids propose, the `most` of highest estimate."""
        assert self.codec.centroids is not None
        postings = [segment.postings for segment in self._segments if segment.postings is not None]
        products = query.flat() @ self.codec.centroids.T  # [Vq, K]
        rows, sums = propose(products, postings, self._bounds, self.settings.probes)
        rows, sums = rows[self._alive[rows]], sums[self._alive[rows]]
        if len(rows) <= most:
            return rows
        least = np.partition(sums, len(sums) - most)[len(sums) - most]
        above = rows[sums > least]
        return np.concatenate([above, rows[sums == least][: most - len(above)]])

    def _best_among(
        self, query: Vectors[np.ndarray], length: np.ndarray, rows: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and rows of one query's k best of some documents, or of fewer where there are fewer."""
        nothing = np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)
        if not len(rows):
            return nothing[0][0], nothing[1][0]
        read = self._stored(rows)
        apart = self._apart(query, length, read)
        (scores,), (places,) = add_best_of_several(nothing, query, read, 0, k, apart)
        filled = scores > LOWEST  # documents without vectors are not found
        return scores[filled], rows[places[filled]]

    def _search_all(self, queries: Vectors[np.ndarray], lengths: np.ndarray, k: int, label: str | None) -> Hits:
        """Return each query's k best of all documents."""
        found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if not len(queries):
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        with progress(label, total=len(self), unit="documents") as advance:
            for place, read in self._parts():
                apart = self._apart(queries, lengths, read)
                found = add_best_of_several(found, queries, read, place, k, apart)
                advance(len(read))
        scores, places = found
        lacking = scores == LOWEST  # documents without vectors
        return np.where(lacking, np.float32(0), scores), np.where(lacking, NOTHING, self.rows[places])

    def _parts(self) -> Iterator[tuple[int, Vectors[np.ndarray]]]:
        """Yield all documents, decoded, in parts, each with the number of its first among those not deleted."""
        place = 0
        for segment, first in zip(self._segments, self._bounds[:-1], strict=True):
            row = first
            for part in segment.parts(CHUNK):
                alive = self._alive[row : row + len(part)]
                row += len(part)
                kept = part if alive.all() else part.take(np.flatnonzero(alive))
                if len(kept):
                    yield place, Vectors(self.codec.decode(kept.packed), kept.starts)
                place += len(kept)

    def _apart(self, queries: Vectors[np.ndarray], lengths: np.ndarray, read: Vectors[np.ndarray]) -> np.ndarray:
        """Return how far two scores of one pair can be from each other by rounding ([Q])."""
        longest = self.codec.longest
        if longest is None:
            longest = float(longest_vectors(read, "documents", 0).max(initial=0))
        found: np.ndarray = 2 * ROUNDING * roundings(queries) * lengths * longest
        return found
