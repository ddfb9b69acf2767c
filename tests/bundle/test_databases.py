"""Versions whose vectors live in a database: real servers, started from packages, where those are installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embfit.bundle import BundleVersions, Gates, open_bundle
from embfit.bundle.promotion import Pruning, promote, prune, rollback
from embfit.errors import ConfigError, UnavailableError, UserError
from embfit.index import DatabaseIndex, ExactIndex, MilvusBuilder, PgvectorBuilder
from embfit.index.databases import upload
from embfit.index.databases.milvus import MilvusDatabase
from embfit.index.databases.pgvector import PgvectorDatabase
from embfit.model import Encoder
from tests.bundle.conftest import CHANGED, Make
from tests.conftest import TEXTS
from tests.index.databases.servers import milvus, pgvector
from tests.server.conftest import serving, until
from tests.server.test_live_version import QUERIES, expected, other
from tests.server.test_server import together

__all__ = ["milvus", "pgvector"]  # fixtures

Builder = PgvectorBuilder | MilvusBuilder
DATABASES = ("pgvector", "milvus")


def database_of(builder: Builder) -> PgvectorDatabase | MilvusDatabase:
    return PgvectorDatabase(builder) if isinstance(builder, PgvectorBuilder) else MilvusDatabase(builder)


@pytest.fixture(params=DATABASES)
def builder(request: pytest.FixtureRequest) -> Iterator[Builder]:
    """A server without collections; those that a test makes are dropped after it."""
    found: Builder = request.getfixturevalue(request.param)
    yield found
    database = database_of(found)
    if isinstance(database, PgvectorDatabase):
        sql(found, "DROP VIEW IF EXISTS docs")
    elif database.alias_target("docs"):
        database._do(lambda client: client.drop_alias("docs"))
    for name in database.collections("docs"):
        database.drop(name)


def sql(builder: Builder, statement: str) -> list[tuple[Any, ...]]:
    """Ask PostgreSQL as another program would."""
    import psycopg

    with psycopg.connect(host=builder.host, user="postgres", dbname="postgres", autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_a_version_lives_in_a_database(
    builder: Builder, versions: BundleVersions, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = make(builder=builder)
    database = database_of(builder)
    assert (manifest.index.recall, manifest.documents.encoded) == (1.0, 0)  # vectors of version 1 were used again
    assert database.collections("docs")["docs__2"].kept
    with open_bundle(versions.folder, 1) as exact, open_bundle(versions.folder, 2) as bundle:
        index = bundle.searcher.index
        assert isinstance(index, DatabaseIndex)
        assert isinstance(exact.searcher.index, ExactIndex)
        vectors = exact.encoder.embed(QUERIES, "query")
        for wanted, found in zip(exact.searcher.index.search(vectors, 5), index.search(vectors, 5), strict=True):
            np.testing.assert_array_equal(wanted, found)
        assert prune(versions, keep=0) == Pruning([], {2: "a process has it open"})
    assert database.alias_target("docs") is None
    promote(versions, 2, Gates())
    assert database.alias_target("docs") == "docs__2"
    make(builder=builder, texts=CHANGED)
    promote(versions, 3, Gates(loss=None))
    assert database.alias_target("docs") == "docs__3"
    assert rollback(versions) == (2, 3)
    assert database.alias_target("docs") == "docs__2"
    promote(versions, 1, Gates(loss=None))  # which is in no database: others read version 2 still
    assert "docs@1 has no collection in" in caplog.text
    assert "other readers of the alias docs there still get docs__2" in caplog.text
    versions.point({"previous": None})
    done = prune(versions, keep=0)  # the others go
    assert "the alias docs, which other applications search, points to docs__2" in done.kept[2]
    assert (done.removed, [*done.kept], versions.numbers()) == ([3], [2], [1, 2])
    assert [*database.collections("docs")] == ["docs__2"]


def test_what_a_build_left_that_ended_around_the_rename(
    builder: Builder, versions: BundleVersions, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version gets its name, and then its collection is kept: a process may end before either."""
    database = database_of(builder)
    make(builder=builder)
    rename = Path.rename

    def ended(self: Path, target: Path) -> Path:
        if not target.name.isdigit():
            return rename(self, target)
        if not before:
            rename(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", ended)
    before = True
    with pytest.raises(KeyboardInterrupt):
        make(builder=builder, texts=CHANGED)
    assert [*database.collections("docs")] == ["docs__2", "docs__3"]
    left = Pruning([], {}, [f"docs__3 ({database.place})"])
    assert prune(versions, keep=9, dry_run=True) == left
    with versions.not_publishing():  # as a process that fills it
        assert prune(versions, keep=9) == Pruning([], {})
    assert prune(versions, keep=9) == left
    before = False
    with pytest.raises(KeyboardInterrupt):
        make(builder=builder, texts=CHANGED)
    assert versions.numbers() == [1, 2, 4]
    assert not database.collections("docs")["docs__4"].kept
    monkeypatch.undo()
    assert prune(versions, keep=9) == Pruning([], {})  # version 4 has it
    promote(versions, 4, Gates(loss=None))
    assert [*database.collections("docs")] == ["docs__2", "docs__4"]
    assert database.collections("docs")["docs__4"].kept


@pytest.mark.slow
def test_others_read_the_champion_by_sql(pgvector: PgvectorBuilder, versions: BundleVersions, make: Make) -> None:
    builder = pgvector
    make(builder=builder)
    promote(versions, 2, Gates())
    with open_bundle(versions.folder, 2) as bundle:
        vector = bundle.encoder.encode([QUERIES[0]], "query")[0].tolist()
        [hits] = bundle.searcher.hits(bundle.searcher.search([QUERIES[0]], 3))
    asked = f"SELECT id, \"text\", -(embedding <#> '{vector}') FROM docs ORDER BY embedding <#> '{vector}' LIMIT 3"
    assert sql(builder, asked) == [(hit.id, hit.text, pytest.approx(hit.score, abs=1e-6)) for hit in hits]
    plan = "SET enable_seqscan = off; SET enable_sort = off; EXPLAIN " + asked
    import psycopg

    with psycopg.connect(host=builder.host, user="postgres", dbname="postgres", autocommit=True) as connection:
        for statement in plan.split("; "):
            cursor = connection.execute(statement)
        assert "docs__2_hnsw" in str(cursor.fetchall())
    sql(builder, "CREATE ROLE reader; GRANT SELECT ON docs TO reader")
    make(builder=builder, texts=CHANGED)
    promote(versions, 3, Gates(loss=None))
    assert sql(builder, "SELECT has_table_privilege('reader', 'docs', 'SELECT'), count(*) FROM docs") == [(True, 12)]
    sql(builder, "DROP VIEW docs; DROP ROLE reader; DROP TABLE docs__2, docs__3")


@pytest.mark.slow
def test_the_next_build_writes_only_what_is_missing(
    builder: Builder, versions: BundleVersions, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "BATCH", 5)
    kind = type(database_of(builder))
    added: list[int] = []
    add = kind.add

    def counted(self: Any, name: str, first: int, *given: Any) -> None:
        if first == 10 and not added[2:]:
            added.append(first)
            raise UserError("the connection is gone")
        added.append(first)
        add(self, name, first, *given)

    monkeypatch.setattr(kind, "add", counted)
    with pytest.raises(UserError, match="the connection is gone"):
        make(builder=builder)
    assert [*database_of(builder).collections("docs")] == ["docs__2"]
    manifest = make(builder=builder)
    assert manifest.version == 3
    assert added == [0, 5, 10, 10]
    assert [*database_of(builder).collections("docs")] == ["docs__3"]
    open_bundle(versions.folder, 3).close()


@pytest.mark.slow
def test_a_collection_that_is_gone_is_refused_and_the_old_version_serves_on(
    builder: Builder, versions: BundleVersions, make: Make
) -> None:
    make(builder=builder)
    make(builder=builder, texts=CHANGED)
    promote(versions, 2, Gates())
    database = database_of(builder)
    with serving(versions) as served:
        database.drop("docs__3")
        with pytest.raises(
            UserError, match=r"docs__3 is missing; make a new version \(task=index\), or use another one"
        ):
            promote(versions, 3, Gates(loss=None))
        versions.point({"champion": 3})
        until(lambda: served.service._main._refused is not None)
        answer = served.post("/v1/search", query=QUERIES[0], k=3)
        assert (answer.status_code, answer.headers["x-embfit-bundle"]) == (200, "docs@2")


@pytest.mark.slow
def test_a_lost_connection_is_made_again(pgvector: PgvectorBuilder, versions: BundleVersions, make: Make) -> None:
    make(builder=pgvector)
    with open_bundle(versions.folder, 2) as bundle:
        found = bundle.searcher.search(QUERIES, 3)
        sql(pgvector, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'embfit'")
        again = bundle.searcher.search(QUERIES, 3)
        np.testing.assert_array_equal(found[1], again[1])
    sql(pgvector, "DROP TABLE docs__2")


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        (PgvectorBuilder(host="127.0.0.1", port=1, timeout=2), "PostgreSQL at 127.0.0.1:1, postgres.public cannot be"),
        (MilvusBuilder(url="http://127.0.0.1:1", timeout=1), "Milvus at http://127.0.0.1:1, default does not answer"),
    ],
    ids=DATABASES,
)
def test_no_server(builder: Builder, said: str, versions: BundleVersions, make: Make) -> None:
    pytest.importorskip("psycopg" if isinstance(builder, PgvectorBuilder) else "pymilvus")
    with pytest.raises(UnavailableError, match=said):
        make(builder=builder)
    assert versions.numbers() == [1]


@pytest.mark.slow
def test_secrets_are_read_from_the_environment_and_written_nowhere(
    builder: Builder, versions: BundleVersions, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed = replace(builder, key_variable="EMBFIT_TEST_KEY")
    with pytest.raises(ConfigError, match=r"index\.key_variable=EMBFIT_TEST_KEY: the environment variable is not set"):
        make(builder=keyed)
    monkeypatch.setenv("EMBFIT_TEST_KEY", "root:s3cr3t")
    make(builder=keyed)
    written = [path.read_bytes() for path in versions.folder.rglob("*") if path.is_file()]
    assert not any(b"s3cr3t" in content for content in written)
    assert any(b"EMBFIT_TEST_KEY" in content for content in written)


def test_what_a_database_cannot_hold_is_said() -> None:
    pytest.importorskip("psycopg")
    database = PgvectorDatabase(PgvectorBuilder(host="x"))
    with pytest.raises(ValueError, match="allows 2,000 dimensions of vector, and these vectors have 4,096; set index"):
        database.check_fits("docs", 4096)
    PgvectorDatabase(PgvectorBuilder(host="x", vector_type="halfvec")).check_fits("docs", 4000)
    with pytest.raises(ValueError, match="a table of PostgreSQL allows 47"):
        database.check_fits("d" * 48, 384)


def test_addresses_of_milvus() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(ConfigError, match=r"index\.url holds a name, a key or a query; give only the") as raised:
        MilvusDatabase(MilvusBuilder(url="http://root:s3cr3t@localhost:19530"))
    assert "s3cr3t" not in str(raised.value)
    with pytest.raises(ValueError, match="a collection of Milvus cannot be called my-docs: its name is limited to"):
        MilvusDatabase(MilvusBuilder(url="http://localhost:19530")).check_fits("my-docs", 384)


@pytest.mark.slow
def test_no_answer_mixes_versions_over_fifty_swaps(
    builder: Builder, versions: BundleVersions, make: Make, tiny_encoder: Encoder
) -> None:
    make(builder=builder)
    make(builder=builder, encoder=other(tiny_encoder), texts=CHANGED)
    promote(versions, 2, Gates())
    known = expected(versions)
    assert sum(known["docs@2"][query] != known["docs@3"][query] for query in QUERIES) >= 10  # they can be told apart
    seen: dict[str, int] = {"docs@2": 0, "docs@3": 0}
    wrong: list[object] = []
    end = threading.Event()
    with serving(versions) as running:

        def ask(first: int) -> None:
            place = first
            while not end.is_set():
                query = QUERIES[place % len(TEXTS)]
                answer = running.post("/v1/search", query=query, k=3)
                label, body = answer.headers["x-embfit-bundle"], answer.json()
                found = [(hit["id"], hit["score"]) for hit in body["data"][0]["documents"]] if answer.is_success else []
                if found != known[label][query] or body["model"] != label:
                    wrong.append((label, query, answer.status_code, found))
                seen[label] += 1
                place += 1

        threads = [together(lambda first=first: ask(first)) for first in range(3)]
        try:
            for turn in range(50):
                number = 3 - turn % 2
                assert promote(versions, number, Gates(loss=None, floor=None), force=True).promoted
                assert database_of(builder).alias_target("docs") == f"docs__{number}"
                until(lambda number=number: running.service.live.bundle.manifest.version == number)
                before = seen[f"docs@{number}"]
                until(lambda number=number, before=before: seen[f"docs@{number}"] > before + 3)
        finally:
            end.set()
            for thread in threads:
                thread.join()
    assert wrong == []
    assert min(seen.values()) >= 100
