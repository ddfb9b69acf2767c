"""The interface of every index, whether it is searched by vectors or by words, and of what builds one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from embfit.records import Collection, Embeddings
from embfit.vectors import Vectors

Queries = TypeVar("Queries", contravariant=True)

Hits: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Scores [Q, k] float32 and document rows [Q, k] int64, sorted by (-score, row)."""

NOTHING = -1  # row of a place in the hits that no document takes; its score is 0


class Index(Protocol[Queries]):
    """Documents that can be searched, addressed by row.

    An index shows progress only under the label that its caller gives.
    """

    @property
    def fingerprint(self) -> str:
        """Identifies what hits depend on besides the queries: the documents, and how they are searched."""

    def __len__(self) -> int:
        """Return the number of documents."""

    def search(self, queries: Queries, k: int, label: str | None = None) -> Hits:
        """Return each query's k documents of highest score.

        Args:
            queries: what to look for.
            k: how many documents each query gets; places that none takes have row -1 and score 0.
            label: the name that progress is shown under; None shows none.

        Raises:
            ValueError: k is not between 1 and the number of documents, or the queries do not fit the index.
        """

    def score(self, queries: Queries, rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""

    def save(self, folder: Path) -> None:
        """Write all that a search needs into a folder that exists; `load_index` opens it."""


VectorIndex: TypeAlias = Index[Vectors[np.ndarray]]
"""Documents that are searched by queries' vectors."""

TextIndex: TypeAlias = Index[Sequence[str]]
"""Documents that are searched by queries' texts."""


@dataclass(frozen=True)
class EarlierIndex:
    """An index of documents most of which are to be in a new one, too.

    Args:
        index: the earlier one.
        rows: the row of each new document in that index ([N] int64); -1 where it is not in it.
    """

    index: VectorIndex
    rows: np.ndarray


@dataclass(frozen=True)
class Publication:
    """The version of a bundle that an index is made for: what an index in a database is named by, and shows others.

    Args:
        bundle: the bundle's name.
        identity: tells the bundle from others of its name, which may publish into the same database.
        version: the number of the version.
        published: the numbers of the versions that there are already.
        documents: the version's documents; row i has vector i.
        texts: whether others may read titles and texts.
    """

    bundle: str
    identity: str
    version: int
    published: Sequence[int]
    documents: Collection
    texts: bool = True


@dataclass(frozen=True)
class IndexInput:
    """What an index is made of.

    Args:
        documents: their vectors, possibly memory-mapped, and what made them.
        earlier: an index that may be added to, where that is quicker than a new one.
        publication: the version that the index is for, for one that lives in a database; None for no version.
        label: the name that progress is shown under; None shows none.
    """

    documents: Embeddings
    earlier: EarlierIndex | None = None
    publication: Publication | None = None
    label: str | None = None


class IndexBuilder(Protocol):
    """The choice of an index: what a YAML of the group `index` names."""

    def write(self, given: IndexInput, folder: Path) -> None:
        """Index documents and write the index into a folder that exists; `load_index` opens it.

        Args:
            given: the documents' vectors, and what else there is.
            folder: gets the index.

        Raises:
            ValueError: the index cannot hold such vectors.
        """


@runtime_checkable
class KeepsVectors(Protocol):
    """An index that has its documents' vectors as they were given to it, so that another one can be made of them."""

    @property
    def documents(self) -> Vectors[np.ndarray]:
        """The vectors, by row."""


def check_depth(k: int, documents: int) -> None:
    """Hold the number of documents asked for to those that there are.

    Raises:
        ValueError: k is not between 1 and the number of documents.
    """
    if not 1 <= k <= documents:
        raise ValueError(f"k={k} is not between 1 and the index's {documents} documents")


def check_single(documents: Vectors[np.ndarray], kind: str) -> None:
    """Hold an index that compares vector with vector to texts of one vector each.

    Raises:
        ValueError: they have several.
    """
    if not documents.single:
        raise ValueError(f"{kind} holds one vector a document, and these have several; search them exactly")
