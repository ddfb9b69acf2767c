"""The interface of a vector database, and the description that embfit stores with a collection there.

Each version of a bundle has a collection of its own, `NAME__VERSION`. It is filled while other versions are searched,
and never changes afterwards. The database's alias `NAME` is for other applications, and follows the champion. embfit
itself never searches the alias: a reader that loads the encoder and resolves the alias in two steps may search the
vectors of another model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from embfit.errors import UserError

SEPARATOR = "__"  # between the bundle's name and the version's number


@dataclass(frozen=True)
class Description:
    """The description of a collection, stored with it in the database.

    Args:
        bundle: identifies the bundle (`Publication.identity`).
        source: identifies the vectors.
        rows: the number of vectors, once the collection is complete.
        kept: whether it belongs to a published version; if not, an unfinished build created it.
    """

    bundle: str
    source: str
    rows: int
    kept: bool = False

    def text(self) -> str:
        """Return the description as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str | None) -> Description | None:
        """Parse what `text` returned; None if it is something else."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None


class Database(Protocol):
    """A database with collections of vectors. Threads may share it.

    Each method raises `UnavailableError` if the server does not answer, and `UserError` if it rejects a request.
    """

    @property
    def place(self) -> str:
        """The database's address and name, for messages, without secrets."""

    @property
    def max_k(self) -> int:
        """The most documents that one search returns."""

    def check_fits(self, bundle: str, width: int) -> None:
        """Check that the database allows a bundle's name and the width of its vectors.

        Raises:
            ValueError: the name is not allowed, or the vectors have too many dimensions.
        """

    def collections(self, bundle: str) -> Mapping[str, Description | None]:
        """Return the names of all collections of a bundle's name, with their descriptions."""

    def create(self, name: str, width: int, description: Description) -> None:
        """Make an empty collection."""

    def rename(self, name: str, new: str) -> None:
        """Rename a collection."""

    def describe(self, name: str, description: Description) -> None:
        """Store the description of a collection."""

    def count(self, name: str) -> int:
        """Return the number of vectors of a collection."""

    def width(self, name: str) -> int:
        """Return the number of dimensions of a collection's vectors."""

    def add(self, name: str, first: int, vectors: np.ndarray, documents: pa.Table) -> None:
        """Add documents with their vectors, atomically or so that repeating the call is harmless.

        Args:
            name: the collection's name.
            first: the row of the first document.
            vectors: [N, D] float32.
            documents: their columns: `_id`, and those that others may read.
        """

    def finish(self, name: str) -> None:
        """Build or complete the search index of a collection that has all its vectors."""

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of k documents that are probably the nearest.

        Args:
            name: the collection's name.
            queries: [Q, D] float32.
            k: at most `max_k`.

        Returns:
            [Q, k] int64, -1 in empty places.
        """

    def alias_target(self, alias: str) -> str | None:
        """Return the name of the collection that an alias points to; None if there is no such alias.

        Raises:
            UserError: something that is not an alias has the name.
        """

    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a collection, atomically for its readers."""

    def drop(self, name: str) -> None:
        """Remove a collection, if it exists."""


def version_of(name: str) -> int | None:
    """Return the version in a collection's name; None if it has none."""
    number = name.rpartition(SEPARATOR)[2]
    return int(number) if number.isdecimal() else None


def metadata(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document's columns other than its id and texts, as JSON values."""
    beside = {name: value for name, value in document.items() if name not in ("_id", "title", "text")}
    found: dict[str, Any] = json.loads(json.dumps(beside, default=str))
    return found


def refused(place: str, what: str) -> UserError:
    """Return the error for a request that a database rejects."""
    return UserError(f"{place} refuses: {what}")
