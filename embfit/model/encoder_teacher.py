"""An encoder as a teacher: scores training pairs by one vector for each text, or by several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.model.encoder import Encoder
from embfit.model.vector_scores import score_by_vectors
from embfit.records import Collection
from embfit.store import Store, digest

LOGITS = 20.0  # cosines times this have the spread of a cross-encoder's logits, which losses expect


@dataclass(frozen=True)
class EncoderTeacher:
    """Scores pairs of a collection by an encoder: by the cosine, or by the mean MaxSim of several vectors.

    Cosines are multiplied by 20, so temperatures, scales and margins have the same meaning as for a cross-encoder.
    Inner products of vectors without unit length are not changed.

    Args:
        encoder: the encoder, which embeds each text separately.
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
