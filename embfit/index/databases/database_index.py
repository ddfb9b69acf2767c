"""An index in a vector database, which proposes documents; the version's own vectors score them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embfit.errors import UserError
from embfit.index.databases.database import Database
from embfit.index.databases.upload import fill, unfinished_collections
from embfit.index.exact import ExactIndex
from embfit.index.files import VECTORS, read_settings, write_settings, write_vectors
from embfit.index.inner_products import best, pair_scores
from embfit.index.protocol import NOTHING, Hits, IndexInput, check_depth, check_single
from embfit.index.rescoring import contiguous, longest_vectors, prepare_queries
from embfit.progress import progress
from embfit.store import digest
from embfit.vectors import Vectors

log = logging.getLogger(__name__)

CHUNK = 32_768  # vectors checked at once
ASKED = 64  # queries in one request
OVERSHOOT = 2  # proposals for each document that is returned


@dataclass(frozen=True)
class DatabaseIndex:
    """A collection in a database, and the vectors that it was filled with.

    Scores equal those of an exact search over the version's own vectors, but documents that the database does not
    propose are missed. If the database cannot return enough proposals, an exact search of the vectors replaces it.

    Args:
        database: has the collection.
        name: the collection's name.
        alias: the database's alias, which other applications search.
        documents: the vectors, one each, memory-mapped.
        kind: the kind of database, by which `load_index` opens it.
        settings: the database's settings, as they are saved.
        source: identifies the vectors (`Embeddings.fingerprint`).
    """

    database: Database
    name: str
    alias: str
    documents: Vectors[np.ndarray]
    kind: str
    settings: Mapping[str, Any]
    source: str

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.documents)

    @property
    def fingerprint(self) -> str:
        """Identifies the vectors, the collection, and how it is searched."""
        return digest(
            {"search": self.kind, "collection": self.name, "vectors": self.source, "dim": self.documents.width}
            | {"settings": self.settings}
        )

    def search(self, queries: Vectors[np.ndarray], k: int, label: str | None = None) -> Hits:
        """Return each query's k documents, sorted by (-score, row).

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64; row -1 and score 0 where fewer were found.

        Raises:
            UnavailableError: the database does not answer.
            UserError: the collection is missing, or was changed after it was published.
            ValueError: k is not between 1 and the number of documents, the widths differ, or a query is not finite.
        """
        check_depth(k, len(self))
        wanted = min(OVERSHOOT * k, len(self))
        if wanted > self.database.max_k:
            return ExactIndex(self.documents, self.source).search(queries, k, label)
        queries, _ = prepare_queries(queries, self.documents.width)
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        with progress(label, total=len(queries), unit="queries") as advance:
            for start, block in queries.chunks(ASKED):
                found = self.database.propose(self.name, block.rows, wanted)
                if found.max(initial=NOTHING) >= len(self):
                    raise UserError(f"{self.database.place}: {self.name} was changed after it was published")
                some = slice(start, start + len(block))
                scores[some], rows[some] = best(self.score(block, found), found, k)
                advance(len(block))
        return np.where(rows == NOTHING, np.float32(0), scores), rows

    def score(self, queries: Vectors[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Return the exact scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""
        return pair_scores(queries, self.documents, rows)

    def save(self, folder: Path) -> None:
        """Write the vectors and the collection's address, without secrets."""
        write_vectors(folder, self.documents)
        write_settings(folder, self.kind, self._record())

    def check(self) -> None:
        """Check that the collection is the one that was published.

        Raises:
            UnavailableError: the database does not answer.
            UserError: the collection is missing, or is another one.
        """
        place = f"{self.database.place}: the collection {self.name}"
        remedy = "make a new version (task=index), or use another one"
        if self.name not in (existing := self.database.collections(self.alias)):
            raise UserError(f"{place} is missing; {remedy}")
        found = existing[self.name]
        if found is None or (found.source, found.rows) != (self.built_of, len(self)):
            raise UserError(f"{place} is not the one that was published; {remedy}")
        if (width := self.database.width(self.name)) != self.documents.width:
            raise UserError(f"{place} has {width} dimensions, but {self.documents.width} were published; {remedy}")
        if (count := self.database.count(self.name)) != len(self):
            raise UserError(f"{place} has {count} documents, but {len(self)} were published; {remedy}")

    @property
    def built_of(self) -> str:
        """Identifies the content of the collection, independently of its name."""
        return digest({"vectors": self.source, "dim": self.documents.width, "kind": self.kind, "of": self.settings})

    def keep(self) -> None:
        """Mark the collection as belonging to a published version, so that no later build reuses or removes it.

        Call it after publishing the version. If the process is killed before the publication, the next build reuses or
        removes the collection; if it is killed between the two, the next use of the version marks the collection.

        Raises:
            UnavailableError: the database does not answer.
            UserError: the collection is missing, or is another one.
        """
        found = self.database.collections(self.alias).get(self.name)
        if found is None or (found.source, found.rows) != (self.built_of, len(self)):
            self.check()  # raises, and says what differs
        elif not found.kept:
            self.database.describe(self.name, replace(found, kept=True))

    def remove_left(self, identity: str, published: Collection[int], dry_run: bool = False) -> list[str]:
        """Remove the collections that interrupted builds of the bundle left in this database; no build may be running.

        Args:
            identity: identifies the bundle.
            published: the numbers of its versions.
            dry_run: whether to list them only.

        Returns:
            The names of the collections.
        """
        unfinished = unfinished_collections(self.database.collections(self.alias), identity, published)
        for name in () if dry_run else unfinished:
            self.database.drop(name)
        return unfinished

    def set_alias(self) -> None:
        """Point the database's alias, which other applications search, to the collection."""
        self.database.set_alias(self.alias, self.name)

    def drop(self, identity: str) -> None:
        """Remove the collection, unless it belongs to another bundle: a pulled copy has versions, but no collections.

        Args:
            identity: identifies the bundle.

        Raises:
            UserError: the alias of other applications points to it.
        """
        found = self.database.collections(self.alias).get(self.name)
        if found is None or found.bundle != identity:
            log.info("%s: %s belongs to another bundle, and stays", self.database.place, self.name)
            return
        if self.database.alias_target(self.alias) == self.name:
            raise UserError(
                f"{self.database.place}: the alias {self.alias}, which other applications search, points to "
                f"{self.name}; promote another version or remove the alias first"
            )
        self.database.drop(self.name)

    def _record(self) -> dict[str, Any]:
        return {"collection": self.name, "alias": self.alias, "source": self.source, "database": dict(self.settings)}


def write_database_index(
    database: Database,
    kind: str,
    settings: Mapping[str, Any],
    given: IndexInput,
    folder: Path,
) -> None:
    """Fill a collection with documents' vectors, and write the vectors and the collection's address into a folder.

    Args:
        database: where the collection is created.
        kind: the kind of database.
        settings: the database's settings, without secrets.
        given: the vectors, and the version that the collection is for.
        folder: the folder to write to.

    Raises:
        UserError: the database does not answer, or rejects a request.
        ValueError: documents have several vectors each or too many dimensions, a vector is not finite, or there is no
            version to name the collection after.
    """
    documents, publication = given.documents, given.publication
    vectors = documents.vectors
    if publication is None:
        raise ValueError(f"index={kind} names its collection after a bundle's version; use it with task=index")
    check_single(vectors.single, f"index={kind}")
    database.check_fits(publication.bundle, vectors.width)
    for start, chunk in vectors.chunks(CHUNK):
        longest_vectors(contiguous(chunk), "documents", start)
    index = DatabaseIndex(database, "", publication.bundle, vectors, kind, settings, documents.fingerprint)
    name = fill(database, publication, vectors, index.built_of, given.label)
    DatabaseIndex(database, name, publication.bundle, vectors, kind, settings, documents.fingerprint).save(folder)


class DatabaseBuilder(ABC):
    """The choice of a database: a dataclass with its address, and how collections are built and searched there.

    Attributes:
        kind: the name of the choice.
    """

    kind: ClassVar[str]

    @abstractmethod
    def make_database(self) -> Database:
        """Return the database, without connecting to it."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are saved; secrets are only in the environment."""
        found: dict[str, Any] = asdict(self)  # type: ignore[call-overload]  # each choice is a dataclass
        return found

    def check(self, width: int, single: bool, bundle: str) -> None:
        """Check that the database answers, and allows the bundle's name and vectors of this width.

        Raises:
            ConfigError: the environment variable with the key is not set, or the address is invalid.
            UserError: the server does not answer, or something that is not an alias has the bundle's name.
            ValueError: documents have several vectors each or too many dimensions, or the name is not allowed.
        """
        check_single(single, f"index={self.kind}")
        database = self.make_database()
        database.check_fits(bundle, width)
        database.alias_target(bundle)  # the first request to the server

    def write(self, given: IndexInput, folder: Path) -> None:
        """Fill a version's collection, continuing from what an interrupted build has written.

        Raises:
            UserError: the server does not answer, or rejects a request.
            ValueError: documents have several vectors each or too many dimensions, or there is no version.
        """
        write_database_index(self.make_database(), self.kind, self.settings, given, folder)

    def index(self, folder: Path) -> DatabaseIndex:
        """Return a saved index, without connecting to the database."""
        saved, vectors = read_settings(folder), Vectors.open(folder / VECTORS)
        return DatabaseIndex(
            self.make_database(),
            saved["collection"],
            saved["alias"],
            vectors,
            self.kind,
            saved["database"],
            saved["source"],
        )
