"""The interface of every index, whether it is searched by vectors or by words, and of its builder."""

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

NOTHING = -1  # the row of an empty place in the hits; its score is 0


class Index(Protocol[Queries]):
    """Documents that can be searched, addressed by row.

    An index shows progress only if its caller passes a label.
    """

    @property
    def fingerprint(self) -> str:
        """Identifies all that hits depend on besides the queries: the documents and the search's settings."""

    def __len__(self) -> int:
        """Return the number of documents."""

    def search(self, queries: Queries, k: int, label: str | None = None) -> Hits:
        """Return each query's k documents of highest score.

        Args:
            queries: what to search for.
            k: how many documents to return for each query; empty places have row -1 and score 0.
            label: the name that progress is shown under; None shows none.

        Raises:
            ValueError: k is not between 1 and the number of documents, or the queries do not fit the index.
        """

    def score(self, queries: Queries, rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""

    def save(self, folder: Path) -> None:
        """Write all that a search needs into an existing folder; `load_index` opens it."""


VectorIndex: TypeAlias = Index[Vectors[np.ndarray]]
"""Documents that are searched by the vectors of queries."""

TextIndex: TypeAlias = Index[Sequence[str]]
"""Documents that are searched by the texts of queries."""


@dataclass(frozen=True)
class EarlierIndex:
    """An existing index, most of whose documents belong to the new index too.

    Args:
        index: the existing index.
        rows: the row in that index of each document of the new one ([N] int64); -1 if it is not there.
    """

    index: VectorIndex
    rows: np.ndarray


@dataclass(frozen=True)
class Publication:
    """The version of a bundle that an index is built for; an index in a database takes its name and columns from it.

    Args:
        bundle: the bundle's name.
        identity: distinguishes the bundle from others of the same name that publish into the same database.
        version: the number of the version.
        published: the numbers of the versions that exist already.
        documents: the version's documents; row i has vector i.
        texts: whether titles and texts are stored in the database, where others may read them.
    """

    bundle: str
    identity: str
    version: int
    published: Sequence[int]
    documents: Collection
    texts: bool = True


@dataclass(frozen=True)
class IndexInput:
    """What an index is built from.

    Args:
        documents: the documents' vectors, possibly memory-mapped, and their fingerprint.
        earlier: an index that may be extended, if that is quicker than building a new one.
        publication: the version that the index is for, which an index in a database needs; None for no version.
        label: the name that progress is shown under; None shows none.
    """

    documents: Embeddings
    earlier: EarlierIndex | None = None
    publication: Publication | None = None
    label: str | None = None


class IndexBuilder(Protocol):
    """The choice of an index, as a YAML of the group `index` configures it."""

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Check, before documents are encoded, that the index can hold their vectors and that its server answers.

        Args:
            width: the vectors' dimensions.
            single: whether documents have one vector each.
            bundle: the bundle's name, after which a database names its collections.

        Raises:
            ValueError: the index cannot hold such vectors, or a database allows no such name.
            UserError: the server of the index does not answer, or refuses.
        """

    def write(self, given: IndexInput, folder: Path) -> None:
        """Index documents and write the index into an existing folder; `load_index` opens it.

        Args:
            given: the documents' vectors and the index's context.
            folder: the folder to write to.

        Raises:
            ValueError: the index cannot hold such vectors.
        """


@runtime_checkable
class KeepsVectors(Protocol):
    """An index that keeps its documents' vectors unchanged, so that another index can be built from them."""

    @property
    def documents(self) -> Vectors[np.ndarray]:
        """The vectors, by row."""


def check_depth(k: int, documents: int) -> None:
    """Check that a search asks for at least one document, and for no more than there are.

    Raises:
        ValueError: k is not between 1 and the number of documents.
    """
    if not 1 <= k <= documents:
        raise ValueError(f"k={k} is not between 1 and the index's {documents} documents")


def check_single(single: bool, kind: str) -> None:
    """Check that documents have one vector each (`single`), for an index that cannot hold several.

    Raises:
        ValueError: they have several.
    """
    if not single:
        raise ValueError(f"{kind} holds one vector a document, and these have several; search them exactly")
