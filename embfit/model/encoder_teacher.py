"""An encoder that scores training pairs: a teacher of many vectors a text, or of one, for a smaller model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.model.encoder import Encoder
from embfit.model.vector_scores import score_by_vectors
from embfit.records import Collection
from embfit.store import Store, digest

LOGITS = 20.0  # a cosine times this spreads as a cross-encoder's logits do, which losses expect of a teacher


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
        scores: np.ndarray = np.float32(self._scale) * score_by_vectors(self.encoder, collection, rows, store)
        return scores

    @property
    def _scale(self) -> float:
        return LOGITS if self.encoder.normalizes else 1.0
