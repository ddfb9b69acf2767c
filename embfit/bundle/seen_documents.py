"""The documents that a version's model, or a model that it was trained from, was trained on.

A query about such a document cannot compare that model fairly with a new one, even after the document was edited. Each
version of a bundle passes the list on to the next.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = "seen_documents.npy"
PIECE = re.compile(r"#[0-9a-f]{12}$")  # the end of a piece's id: the digest of its text (`data=documents`)


@dataclass(frozen=True, eq=False)
class SeenDocuments:
    """A set of document ids, as digests.

    Args:
        digests: the digests of the ids, ascending ([N] uint64).
    """

    digests: np.ndarray

    @classmethod
    def of(cls, ids: Iterable[str]) -> SeenDocuments:
        """Make the set of some ids."""
        return cls(np.unique(np.fromiter(map(_digest, ids), np.uint64)))

    @classmethod
    def read(cls, folder: Path) -> SeenDocuments:
        """Read the set of a version; empty if it has none."""
        path = folder / FILE
        return cls(np.load(path)) if path.is_file() else cls.of(())

    def write(self, folder: Path) -> None:
        """Write the set into a version's folder."""
        np.save(folder / FILE, self.digests)

    def __or__(self, other: SeenDocuments) -> SeenDocuments:
        return SeenDocuments(np.union1d(self.digests, other.digests))

    def __len__(self) -> int:
        return len(self.digests)

    def among(self, ids: Iterable[str], before: Collection[str]) -> frozenset[str]:
        """Return the ids of documents that were seen, in their present text or in an earlier one.

        The id of a piece changes with its text. So a new piece counts as edited, and seen, if a seen piece of the same
        file is gone.

        Args:
            ids: the ids of today's documents.
            before: the ids of the version's documents.
        """
        if not len(self):
            return frozenset()
        today, earlier = list(ids), {*before}
        seen = self._known(today)
        gone = self._known(earlier.difference(today))
        edited = {_file(name) for name in gone if PIECE.search(name)}
        new = (name for name in today if name not in earlier and PIECE.search(name))
        return frozenset({*seen, *(name for name in new if _file(name) in edited)})

    def _known(self, ids: Iterable[str]) -> list[str]:
        names = list(ids)
        found = np.isin(np.fromiter(map(_digest, names), np.uint64, len(names)), self.digests)
        return [name for name, known in zip(names, found.tolist(), strict=True) if known]


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _file(name: str) -> str:
    return PIECE.sub("", name)
