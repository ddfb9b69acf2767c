"""Texts that are nearly the same as an earlier one, found as they stream past."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from embfit.data.similarity import shingles


class NearCopies:
    """Finds the first of the kept texts whose four-word sequences a new text shares (Jaccard similarity), exactly.

    Sequences are compared as 64-bit hashes. Of n in the order of their hashes, n - ⌈similarity · n⌉ + 1 are enough to
    find every text that is similar enough (prefix filtering, Bayardo et al. 2007); that order is as good as a random
    one, so no pass over all texts is needed before.

    Args:
        similarity: the least similarity of a copy; 1 is the same sequence of words.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._kept: list[np.ndarray] = []  # of each text, its hashes, ascending
        self._holders: dict[int, list[int]] = {}

    def first(self, text: str) -> int | None:
        """Return the number of the first kept text that this one is a near copy of, and keep the text if there is none.

        Texts are numbered from 0 in the order in which they are kept.
        """
        hashes = _hashes(text)
        found = self._find(hashes)
        if found is None:
            for one in self._prefix(hashes):
                self._holders.setdefault(one, []).append(len(self._kept))
            self._kept.append(hashes)
        return found

    def find(self, text: str) -> int | None:
        """Return the number of the first kept text that this one is a near copy of; None if there is none."""
        return self._find(_hashes(text))

    def _find(self, hashes: np.ndarray) -> int | None:
        candidates = Counter(row for one in self._prefix(hashes) for row in self._holders.get(one, ()))
        for row in sorted(candidates):
            other = self._kept[row]
            smaller, larger = sorted((len(hashes), len(other)))
            if smaller < self.similarity * larger:
                continue
            shared = len(np.intersect1d(hashes, other, assume_unique=True))
            if shared >= self.similarity * (len(hashes) + len(other) - shared):
                return row
        return None

    def _prefix(self, hashes: np.ndarray) -> list[int]:
        enough = len(hashes) - math.ceil(self.similarity * len(hashes)) + 1
        found: list[int] = hashes[:enough].tolist()
        return found


def _hashes(text: str) -> np.ndarray:
    return np.unique(np.array([hash(one) for one in shingles(text)], np.int64))
