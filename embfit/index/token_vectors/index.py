"""An index of token vectors: encoded, in memory-mapped files, searched by MaxSim, and changed without a rebuild.

Documents are addressed by row. New documents get the rows after the last; a deleted document leaves its row empty until
`compact` closes the gaps. A change is atomic: it writes new files beside the old ones, and the manifest last. A
`TokenIndex` keeps the state that it opened; a change returns a new object.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from embfit.index.inner_products import Matches, best_matches
from embfit.index.protocol import NOTHING, Hits, check_depth
from embfit.index.rescoring import prepare_queries
from embfit.index.token_vectors.changes import add, build, check_source, compact, copy, delete
from embfit.index.token_vectors.codec import TokenCodec
from embfit.index.token_vectors.codec_files import read_codec
from embfit.index.token_vectors.documents import EncodedDocuments
from embfit.index.token_vectors.manifest import Manifest
from embfit.index.token_vectors.scoring import best_among, best_of_all
from embfit.index.token_vectors.segment import Segment
from embfit.index.token_vectors.settings import EXACT_BELOW, TokenIndexing
from embfit.index.token_vectors.storage import check_contents, check_sizes, open_array
from embfit.progress import progress
from embfit.store import digest
from embfit.vectors import LOWEST, Vectors

log = logging.getLogger(__name__)

OUTGROWN = 4  # times as many vectors as the codec was fitted to, for which the number of centroids should double


class TokenIndex:
    """Documents of several vectors each, searched by MaxSim.

    A document's score is the mean over the query's vectors of the highest inner product with one of the document's
    vectors, as the format stores them. Equal documents have equal scores, whatever the other documents and queries are.

    Args:
        folder: the folder of the index's files.
        manifest: lists the index's files and settings.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        check_sizes(folder, manifest.files)
        self.folder = folder
        self.manifest = manifest
        self.settings = manifest.settings
        codec = read_codec(folder, manifest)
        proposing = manifest.candidates == "centroids"
        segments = [Segment.open(folder / segment.name, proposing) for segment in manifest.segments]
        deleted = np.empty(0, np.int64) if manifest.deleted is None else open_array(folder / manifest.deleted)
        self._documents = EncodedDocuments(codec, segments, deleted)

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
        """Write an index into a folder; it replaces an existing index atomically.

        Args:
            documents: their vectors, possibly memory-mapped; a sample is read, then all, in parts.
            folder: the index's folder; created if missing.
            settings: how vectors are stored and searched; None for the defaults.
            source: identifies what made the vectors; only vectors of the same source can be added.
            codec: an existing codec, such as that of the index to replace; None fits a new one.
            label: the name that progress is shown under; None shows none.

        Raises:
            ValueError: a vector is not finite, or not of length 1 where the format requires that, or there are too few
                vectors for the format.
            OSError: the disk is full.
        """
        return cls(folder, build(documents, folder, settings or TokenIndexing(), source, codec, label))

    @classmethod
    def load(cls, folder: Path, source: str | None = None) -> TokenIndex:
        """Open an index; its vectors are memory-mapped.

        Args:
            folder: the index's folder.
            source: the source that its vectors must have; None accepts any.

        Raises:
            UserError: there is no index, a file is missing or truncated, or the vectors are from another model.
        """
        manifest = Manifest.read(folder)
        if source is not None:
            check_source(folder, manifest, source)
        return cls(folder, manifest)

    def __len__(self) -> int:
        """Return the number of documents, without deleted ones."""
        return len(self._documents.rows)

    @property
    def codec(self) -> TokenCodec:
        """The codec of the vectors; pass it to `build` to encode other documents in the same way."""
        return self._documents.codec

    @property
    def rows(self) -> np.ndarray:
        """The rows of the documents, ascending; deleted ones are missing ([len(self)] int64)."""
        return self._documents.rows

    @property
    def fingerprint(self) -> str:
        """Identifies the stored vectors, which documents are deleted, and the search."""
        manifest, settings = self.manifest, self.settings
        candidates: object = manifest.candidates
        if candidates == "centroids":
            candidates = {"shortlist": settings.shortlist, "probes": settings.probes}
        elif candidates == "bm25":
            candidates = {"bm25": settings.shortlist}
        return digest(
            {
                "search": "tokens",
                "vectors": manifest.source,
                "format": manifest.form,
                "candidates": candidates,
                "files": [facts.sha256 for facts in manifest.files.values()],
            }
        )

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of a stored vector, with its centroid's number and without postings."""
        return self.codec.width

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(facts.bytes for facts in self.manifest.files.values())

    @property
    def bm25_shortlist(self) -> int | None:
        """How many of a BM25 search's first documents are to be scored; None if the index finds candidates itself."""
        return self.settings.shortlist if self.manifest.candidates == "bm25" else None

    @property
    def outgrown(self) -> bool:
        """Whether the index has grown so far beyond the size that it was built for that it should be rebuilt."""
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
            among: [Q, S] the rows to score for each query, such as BM25's hits; negative ones are ignored. None lets
                the index find its own candidates, which it cannot if they come from BM25.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64; row -1 and score 0 if there were fewer candidates.

        Raises:
            ValueError: k is not between 1 and the number of documents, the widths differ, a query is not finite,
                `among` has a row beyond the last, or it is missing and candidates come from BM25.
        """
        check_depth(k, len(self))
        if among is None and self.bm25_shortlist is not None:
            raise ValueError("this index takes candidates from a BM25 search (candidates=bm25); pass their rows: among")
        prepared, lengths = prepare_queries(queries, self.manifest.dim)
        if among is None and self.manifest.candidates == "exact":
            return best_of_all(self._documents, prepared, lengths, k, label)
        most, probes = max(k, self.settings.shortlist), self.settings.probes
        scores = np.zeros((len(prepared), k), np.float32)
        rows = np.full((len(prepared), k), NOTHING, np.int64)
        with progress(label, total=len(prepared), unit="queries") as advance:
            for query in range(len(prepared)):
                one, length = prepared.part(query, query + 1), lengths[query : query + 1]
                if among is None:
                    candidates = self._documents.candidates(one, most, probes)
                else:
                    candidates = self._documents.present(among[query])
                found, found_rows = best_among(self._documents, one, length, candidates, k)
                scores[query, : len(found)], rows[query, : len(found)] = found, found_rows
                advance()
        return scores, rows

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative or deleted.

        Raises:
            ValueError: the widths differ, a query is not finite, or a row is beyond the last.
        """
        prepared, _ = prepare_queries(queries, self.manifest.dim)
        scores = np.full(rows.shape, LOWEST, np.float32)
        for query, chosen in enumerate(rows):
            present = self._documents.present(chosen)
            found = best_matches(prepared.part(query, query + 1), self._documents.decoded(present)).scores
            known = np.isin(chosen, present)
            scores[query, known] = found[np.searchsorted(present, chosen[known])]
        return scores

    def matches(self, query: Vectors[np.ndarray], rows: np.ndarray) -> Matches:
        """Return, for each of a query's vectors, the most similar stored vector of each document.

        Positions count a document's stored vectors. If vectors were pooled, these are not its tokens: encode the
        document again to show its words. The mean of a document's similarities is its score.

        Args:
            query: one text.
            rows: [K] of documents.

        Raises:
            ValueError: the widths differ, the query is not finite, or a row has no document.
        """
        prepared, _ = prepare_queries(query, self.manifest.dim)
        return best_matches(prepared, self.vectors(rows))

    def vectors(self, rows: np.ndarray) -> Vectors[np.ndarray]:
        """Return the vectors of documents as the format stores them, float32, in the order of the rows.

        Raises:
            ValueError: a row has no document.
        """
        present = self._documents.all_present(rows)
        return self._documents.decoded(present).take(np.searchsorted(present, rows))

    def add(self, documents: Vectors[np.ndarray], source: str = "", label: str | None = None) -> TokenIndex:
        """Write further documents, which get the rows after the last, and return the index with them.

        They are encoded with the index's codec; `outgrown` says when the index should be rebuilt.

        Args:
            documents: their vectors.
            source: identifies what made them.
            label: the name that progress is shown under; None shows none.

        Raises:
            UserError: the vectors are from another model, or the index was changed since it was opened.
            ValueError: the widths differ, or a vector is not finite or does not fit the format.
        """
        grown = TokenIndex(self.folder, add(self.folder, self.manifest, self.codec, documents, source, label))
        if grown.outgrown and not self.outgrown:
            log.warning(
                "%s was built for %d vectors and has %d; rebuild it to fit centroids and format to them",
                self.folder,
                self.manifest.fitted,
                grown.manifest.vectors,
            )
        return grown

    def delete(self, rows: np.ndarray) -> TokenIndex:
        """Mark documents as deleted and return the index without them; the others keep their rows.

        Raises:
            UserError: the index was changed since it was opened.
            ValueError: a row has no document.
        """
        alive = self._documents.alive.copy()
        alive[self._documents.all_present(rows)] = False
        return TokenIndex(self.folder, delete(self.folder, self.manifest, np.flatnonzero(~alive)))

    def compact(self) -> TokenIndex:
        """Write the remaining documents as one segment and return that index.

        The document of row `rows[i]` gets row i. The segment equals that of a build of these documents with the same
        codec.

        Raises:
            UserError: the index was changed since it was opened.
        """
        kept = self._documents.kept()
        return TokenIndex(self.folder, compact(self.folder, self.manifest, self.codec, kept))

    def save(self, folder: Path) -> None:
        """Copy the index into another folder; it replaces an existing index atomically."""
        copy(self.folder, self.manifest, folder)

    def verify(self) -> None:
        """Check every file against the digest that was recorded when it was written; this reads all files.

        Raises:
            UserError: a file's content has changed.
        """
        check_contents(self.folder, self.manifest.files)
