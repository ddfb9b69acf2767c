"""Collections of versions in any database: filled in batches, gone on with, checked and dropped, without a server."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embfit.errors import UserError
from embfit.index import ExactIndex, IndexInput, Publication
from embfit.index.databases import upload
from embfit.index.databases.database import Description
from embfit.index.databases.database_index import DatabaseIndex, write_database_index
from embfit.index.files import read_settings
from embfit.records import Embeddings
from embfit.vectors import Vectors, unit_length
from tests.conftest import make_collection

DOCUMENTS = make_collection({f"d{row}": f"text {row}" for row in range(10)}, {}, {})
VECTORS = Vectors(unit_length(np.random.default_rng(0).standard_normal((10, 8), np.float32)))
QUERIES = Vectors(unit_length(np.random.default_rng(1).standard_normal((3, 8), np.float32)))


@dataclass
class Memory:
    """A database in memory that proposes by the wrong sign of the second dimension, and can fail while it is filled."""

    place: str = "Memory"
    max_k: int = 8
    tables: dict[str, dict[int, tuple[np.ndarray, dict[str, Any]]]] = field(default_factory=dict)
    comments: dict[str, Description] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    added: list[int] = field(default_factory=list)
    fails_at: int | None = None

    def check_fits(self, bundle: str, width: int) -> None:
        if width > 100:
            raise ValueError("too wide")

    def collections(self, bundle: str) -> dict[str, Description | None]:
        return {name: self.comments.get(name) for name in self.tables if name.startswith(f"{bundle}__")}

    def create(self, name: str, width: int, description: Description) -> None:
        assert name not in self.tables
        self.tables[name], self.comments[name] = {}, description

    def rename(self, name: str, new: str) -> None:
        assert new not in self.tables
        for kept in (self.tables, self.comments):
            kept[new] = kept.pop(name)  # type: ignore[attr-defined]

    def describe(self, name: str, description: Description) -> None:
        self.comments[name] = description

    def count(self, name: str) -> int:
        return len(self.tables[name])

    def width(self, name: str) -> int:
        return len(self.tables[name][0][0])

    def add(self, name: str, first: int, vectors: np.ndarray, documents: pa.Table) -> None:
        if self.fails_at == first:
            raise UserError("Memory does not answer")
        self.added.append(first)
        rows = zip(vectors, documents.to_pylist(), strict=True)
        self.tables[name].update(enumerate(rows, first))

    def finish(self, name: str) -> None:
        pass

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        kept = np.stack([self.tables[name][row][0] for row in range(len(self.tables[name]))])
        turned = kept * np.where(np.arange(kept.shape[1]) == 1, -1, 1)
        return np.argsort(-(queries @ turned.T), axis=1, kind="stable")[:, :k]

    def alias_target(self, alias: str) -> str | None:
        return self.aliases.get(alias)

    def set_alias(self, alias: str, name: str) -> None:
        self.aliases[alias] = name

    def drop(self, name: str) -> None:
        self.tables.pop(name, None)
        self.comments.pop(name, None)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "BATCH", 4)


def publication(version: int, published: tuple[int, ...] = (), identity: str = "mine") -> Publication:
    return Publication("docs", identity, version, published, DOCUMENTS)


def write(database: Memory, folder: Path, given: Publication, vectors: Vectors[np.ndarray] = VECTORS) -> DatabaseIndex:
    folder.mkdir(exist_ok=True)
    write_database_index(
        database, "memory", {"m": 16}, IndexInput(Embeddings(vectors, "made"), publication=given), folder
    )
    saved = read_settings(folder)
    assert saved["kind"] == "memory"
    return DatabaseIndex(database, saved["collection"], "docs", vectors, "memory", saved["database"], saved["source"])


def test_scores_are_those_of_the_vectors(tmp_path: Path) -> None:
    database = Memory()
    index = write(database, tmp_path / "1", publication(1))
    assert [*database.tables] == ["docs__1"]
    assert database.tables["docs__1"][9][1] == {"_id": "d9", "title": "", "text": "text 9"}
    assert database.added == [0, 4, 8]
    scores, rows = index.search(QUERIES, 3)
    np.testing.assert_array_equal(scores, ExactIndex(VECTORS).score(QUERIES, rows))  # though the database has others
    assert (np.diff(scores, axis=1) <= 0).all()
    deep = index.search(QUERIES, 5)  # twice as many proposals are more than the database gives
    for ours, exact in zip(deep, ExactIndex(VECTORS).search(QUERIES, 5), strict=True):
        np.testing.assert_array_equal(ours, exact)


def test_a_build_that_ended_early_is_gone_on_with(tmp_path: Path) -> None:
    database = Memory(fails_at=8)
    with pytest.raises(UserError, match="Memory does not answer"):
        write(database, tmp_path / "1", publication(1))
    assert database.added == [0, 4]
    database.fails_at, database.added = None, []
    index = write(database, tmp_path / "2", publication(2))
    assert database.added == [8]
    assert [*database.tables] == ["docs__2"]  # renamed
    index.check()
    assert len(database.tables["docs__2"]) == 10


def test_what_a_build_of_other_vectors_left_is_removed(tmp_path: Path) -> None:
    database = Memory()
    write(database, tmp_path / "1", publication(1)).keep()
    write(database, tmp_path / "2", publication(2, (1,)))  # whole, and no version became of it
    other = Vectors(VECTORS.rows[:, ::-1].copy())
    write(database, tmp_path / "3", publication(3, (1,)), other)
    assert [*database.tables] == ["docs__1", "docs__3"]
    write(database, tmp_path / "4", publication(4, (1,), "theirs"))  # whose build leaves those of others alone
    assert [*database.tables] == ["docs__1", "docs__3", "docs__4"]
    with pytest.raises(UserError, match="Memory already has a collection docs__4 of another bundle"):
        write(database, tmp_path / "5", publication(4, (1,)))


def test_what_was_changed_is_refused(tmp_path: Path) -> None:
    database = Memory()
    index = write(database, tmp_path / "1", publication(1))
    index.check()
    one = database.tables["docs__1"].pop(9)
    with pytest.raises(UserError, match="Memory: the collection docs__1 has 9 documents, but 10 were published"):
        index.check()
    database.tables["docs__1"][9] = one
    database.tables["docs__1"][0] = (np.ones(5, np.float32), {})
    with pytest.raises(UserError, match="docs__1 has 5 dimensions, but 8 were published"):
        index.check()
    database.describe("docs__1", Description("mine", "other vectors", 10))
    with pytest.raises(UserError, match="docs__1 is not the one that was published"):
        index.check()
    database.drop("docs__1")
    with pytest.raises(UserError, match=r"docs__1 is missing; make a new version \(task=index\)"):
        index.check()


def test_what_the_alias_names_is_not_dropped(tmp_path: Path) -> None:
    database = Memory()
    first = write(database, tmp_path / "1", publication(1))
    first.keep()
    second = write(database, tmp_path / "2", publication(2, (1,)))
    first.set_alias()
    with pytest.raises(UserError, match="the alias docs, which other applications search, points to docs__1; promote"):
        first.drop("mine")
    second.set_alias()
    first.drop("another copy's")
    assert "docs__1" in database.tables
    first.drop("mine")
    assert [*database.tables] == ["docs__2"]


def test_fingerprints_tell_collections_apart(tmp_path: Path) -> None:
    index = write(Memory(), tmp_path / "1", publication(1))
    others = [replace(index, name="docs__2"), replace(index, source="other"), replace(index, settings={"m": 8})]
    assert len({one.fingerprint for one in (index, *others)}) == 4
    assert index.built_of == replace(index, name="docs__2").built_of


def test_what_cannot_be_held_is_said(tmp_path: Path) -> None:
    broken = Vectors(np.full((10, 8), np.nan, np.float32))
    several = Vectors(VECTORS.rows, np.arange(0, 11, 2))
    for vectors, said in ((broken, "row 0 of the documents is not finite"), (several, "holds one vector a document")):
        with pytest.raises(ValueError, match=said):
            write(Memory(), tmp_path / "1", publication(1), vectors)
    with pytest.raises(ValueError, match="names its collection after a bundle's version"):
        write_database_index(Memory(), "memory", {}, IndexInput(Embeddings(VECTORS, "made")), tmp_path)
