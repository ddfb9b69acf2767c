"""The documents that a version's model was trained on, and the models before it that it was trained from.

A query about such a document does not compare that model with a new one, even after the document has been edited. The
versions of a bundle hand the list on: once seen, always seen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = "seen_documents.npy"
PIECE = re.compile(r"#[0-9a-f]{12}$")  # the digest of its text, with which the id of a piece ends (`data=documents`)


@dataclass(frozen=True, eq=False)
class SeenDocuments:
    """Ids of documents, as digests.

    Args:
        digests: of the ids, ascending ([N] uint64).
    """

    digests: np.ndarray

    @classmethod
    def of(cls, ids: Iterable[str]) -> SeenDocuments:
        """Return some documents, by their ids."""
        return cls(np.unique(np.fromiter(map(_digest, ids), np.uint64)))

    @classmethod
    def read(cls, folder: Path) -> SeenDocuments:
        """Return those of a version; none where it does not say."""
        path = folder / FILE
        return cls(np.load(path)) if path.is_file() else cls.of(())

    def write(self, folder: Path) -> None:
        """Write them as a version's."""
        np.save(folder / FILE, self.digests)

    def __or__(self, other: SeenDocuments) -> SeenDocuments:
        return SeenDocuments(np.union1d(self.digests, other.digests))

    def __len__(self) -> int:
        return len(self.digests)

    def among(self, ids: Iterable[str], before: Collection[str]) -> frozenset[str]:
        """Return the documents that were seen, in their present text or in an earlier one.

        The id of a piece changes with its text. So a piece that is new counts as an edited one where a piece of its
        file is gone that was seen.

        Args:
            ids: of the documents today.
            before: ids of the documents of the version.
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
