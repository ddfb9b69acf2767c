"""An encoder that scores training pairs: a teacher of many vectors a text, or of one, for a smaller model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.index.inner_products import pair_scores
from embfit.index.protocol import NOTHING
from embfit.model.embed import embed
from embfit.model.encoder import Encoder
from embfit.progress import progress
from embfit.records import Collection
from embfit.store import Store, digest

LOGITS = 20.0  # a cosine times this spreads as a cross-encoder's logits do, which losses expect of a teacher
BLOCK = 64  # queries whose documents' vectors are in memory together


@dataclass(frozen=True)
class EncoderTeacher:
    """Scores pairs of a collection by an encoder's vectors: the cosine, or the mean MaxSim of several vectors a text.

    Cosines are multiplied by 20, so that temperatures, scales and margins mean what they mean for a cross-encoder;
    inner products of vectors that have no unit length are taken as they are.

    Args:
        encoder: makes the vectors, of one text alone.
    """

    encoder: Encoder

    @property
    def fingerprint(self) -> str:
        """Identifies everything that a score depends on besides the two texts."""
        kinds = {"query": self.encoder.fingerprint("query"), "document": self.encoder.fingerprint("document")}
        return digest({"encoder": kinds, "scale": self._scale})

    def score(self, collection: Collection, rows: np.ndarray, store: Store) -> np.ndarray:
        """Return the scores of pairs ([P] float32); a document without any vector scores -inf.

        Args:
            collection: the collection that has the texts.
            rows: [P, 2], a query row and a document row each.
            store: the store that keeps the vectors.
        """
        rows = np.asarray(rows, np.int64).reshape(-1, 2)
        asked, where = np.unique(rows[:, 0], return_inverse=True)
        queries = embed(self.encoder, collection, "query", store, rows=asked.tolist()).vectors
        documents = embed(self.encoder, collection, "document", store).vectors
        order = np.argsort(where, kind="stable")  # pairs of one query after those of another
        counts = np.bincount(where, minlength=len(asked))  # [Q]
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        lists = np.full((len(asked), counts.max(initial=0)), NOTHING, np.int64)
        lists[where[order], columns] = rows[order, 1]
        found = np.empty(lists.shape, np.float32)
        with progress("scoring pairs", total=len(asked), unit="queries") as advance:
            for start in range(0, len(asked), BLOCK):
                some = slice(start, start + BLOCK)
                found[some] = pair_scores(queries.part(start, min(start + BLOCK, len(asked))), documents, lists[some])
                advance(len(lists[some]))
        scores = np.empty(len(rows), np.float32)
        scores[order] = found[where[order], columns] * np.float32(self._scale)
        return scores

    @property
    def _scale(self) -> float:
        return LOGITS if self.encoder.normalizes else 1.0
