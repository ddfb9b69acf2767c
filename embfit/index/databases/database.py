"""What embfit asks of a vector database, and what it writes down beside a collection there.

A version of a bundle has a collection of its own, `NAME__VERSION`, which is filled beside those that are searched and
never changes afterwards. The database's own alias `NAME` is for other readers, and is moved when the champion is.
embfit itself never searches the alias: a reader that takes an encoder and an alias one after the other searches, now
and then, the vectors of another model.
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
    """What is written down beside a collection, in the database.

    Args:
        bundle: identifies the bundle (`Publication.identity`).
        source: identifies the vectors.
        rows: how many there are, or will be.
        kept: whether a version has it; another one is what a build left that did not end.
    """

    bundle: str
    source: str
    rows: int
    kept: bool = False

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str | None) -> Description | None:
        """Read what `text` wrote; None where something else was written."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None


class Database(Protocol):
    """A database that has collections of vectors. Threads may share it.

    Each method raises `UnavailableError` where the server does not answer, and `UserError` where it refuses.
    """

    @property
    def place(self) -> str:
        """Which database it is, for messages, without secrets."""

    @property
    def deepest(self) -> int:
        """How many documents a search of its index returns at most."""

    def check_fits(self, bundle: str, width: int) -> None:
        """Hold a bundle's name and its vectors to what the database can have.

        Raises:
            ValueError: the name is none there, or the vectors have too many dimensions.
        """

    def collections(self, bundle: str) -> Mapping[str, Description | None]:
        """Return the collections of a bundle's name, with what is written down beside each."""

    def create(self, name: str, width: int, description: Description) -> None:
        """Make an empty collection."""

    def rename(self, name: str, new: str) -> None:
        """Give a collection another name."""

    def describe(self, name: str, description: Description) -> None:
        """Write down what a collection is."""

    def count(self, name: str) -> int:
        """Return how many vectors a collection has."""

    def width(self, name: str) -> int:
        """Return how many dimensions its vectors have."""

    def add(self, name: str, first: int, vectors: np.ndarray, documents: pa.Table) -> None:
        """Add vectors of documents, all of them or none.

        Args:
            name: the collection's name.
            first: the row of the first.
            vectors: [N, D] float32.
            documents: their columns: `_id`, and those that others may read.
        """

    def finish(self, name: str) -> None:
        """Make what searches are quick by, when all vectors are there."""

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of k documents that are likely to be the nearest.

        Args:
            name: the collection's name.
            queries: [Q, D] float32.
            k: at most `deepest`.

        Returns:
            [Q, k] int64, -1 where fewer were found.
        """

    def shown(self, alias: str) -> str | None:
        """Return the name of the collection that an alias names; None where there is no such alias.

        Raises:
            UserError: something else has the alias's name.
        """

    def show(self, alias: str, name: str) -> None:
        """Let an alias name a collection, in one step for its readers."""

    def drop(self, name: str) -> None:
        """Remove a collection; one that is not there is no error."""


def version_of(name: str) -> int | None:
    """Return the version in a collection's name, None where it has none."""
    number = name.rpartition(SEPARATOR)[2]
    return int(number) if number.isdecimal() else None


def metadata(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a document has beside its id and texts, as values that JSON has."""
    beside = {name: value for name, value in document.items() if name not in ("_id", "title", "text")}
    found: dict[str, Any] = json.loads(json.dumps(beside, default=str))
    return found


def refused(place: str, what: str) -> UserError:
    """Return the error of a request that a database does not carry out."""
    return UserError(f"{place} refuses: {what}")
