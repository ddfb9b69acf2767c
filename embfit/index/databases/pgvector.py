"""PostgreSQL with pgvector: a table for each version, and a view for other readers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from pydantic import Field

from embfit.errors import ConfigError, UserError
from embfit.index.databases.database import SEPARATOR, Description, metadata
from embfit.index.databases.database_index import DatabaseBuilder
from embfit.index.databases.postgres_connections import PostgresConnections
from embfit.index.protocol import NOTHING
from embfit.type_hints import Location

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composable, Composed

log = logging.getLogger(__name__)

DEEPEST = 1000  # pgvector's limit of hnsw.ef_search
MOST_DIMENSIONS = {"vector": 2000, "halfvec": 4000}  # of a graph
NAME_BYTES = 63  # of PostgreSQL's identifiers; longer ones are cut without an error
BESIDE = len("__000000000_hnsw")  # the version's number and what a graph's name adds to the bundle's

VectorType: TypeAlias = Literal["vector", "halfvec"]
"""Of pgvector's columns: four bytes a value, or two."""


@dataclass(frozen=True)
class PgvectorBuilder(DatabaseBuilder):
    """A table in PostgreSQL for each version of a bundle, and a view that names the champion's.

    Tables have the columns `position` (the document's row in the version), `id`, `title`, `text`, `metadata` (JSON) and
    `embedding`. Extra `pgvector`; the server needs pgvector 0.8 or newer.

    Args:
        host: the server's name or address, or the folder of its socket.
        port: the server's port.
        database: the database's name.
        user: who connects, and owns the tables.
        key_variable: the *name* of the environment variable that holds the password; None for none.
        schema: where tables and the view go; it must be there.
        vector_type: how the table keeps a value; a graph takes 2,000 dimensions of `vector` and 4,000 of `halfvec`.
        method: a graph that proposes (`hnsw`), or no index, so that every vector is compared (`exact`).
        m: links of a document in a layer of the graph.
        ef_construction: documents that are looked at to place one in the graph.
        ef_search: documents that are looked at for a query, at least.
        timeout: seconds that a search, or a connection, may take.

    Raises:
        ConfigError: psycopg or pgvector are not installed.
    """

    kind: ClassVar[str] = "pgvector"

    host: Annotated[str | None, Location(required=True, example="localhost, the server's name")] = None
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    database: str = "postgres"
    user: str = "postgres"
    key_variable: str | None = None
    schema: str = "public"
    vector_type: VectorType = "vector"
    method: Literal["hnsw", "exact"] = "hnsw"
    m: Annotated[int, Field(ge=2, le=100)] = 16
    ef_construction: Annotated[int, Field(ge=4, le=1000)] = 64
    ef_search: Annotated[int, Field(ge=1, le=1000)] = 100
    timeout: Annotated[float, Field(gt=0)] = 10.0

    def make_database(self) -> PgvectorDatabase:
        """Return the database, which is asked nothing yet."""
        return PgvectorDatabase(self)


@dataclass(frozen=True)
class PgvectorDatabase:
    """A schema of a PostgreSQL database.

    Args:
        settings: where it is, and how its tables are made and searched.
    """

    settings: PgvectorBuilder

    def __post_init__(self) -> None:
        try:
            import pgvector
            import psycopg
        except ImportError as error:
            raise ConfigError(
                "index=pgvector needs psycopg; install it with: pip install 'embfit[pgvector]'"
            ) from error
        assert pgvector
        assert psycopg

    @property
    def place(self) -> str:
        """The address, the database and the schema."""
        given = self.settings
        return f"PostgreSQL at {given.host}:{given.port}, {given.database}.{given.schema}"

    @property
    def deepest(self) -> int:
        """Documents that a search returns at most."""
        return DEEPEST

    def check_fits(self, bundle: str, width: int) -> None:
        """Hold a bundle's name to an identifier's length, and vectors to what a graph takes.

        Raises:
            ValueError: the name is too long, or there are too many dimensions.
        """
        longest = NAME_BYTES - BESIDE
        if len(bundle.encode()) > longest:
            raise ValueError(f"the bundle's name has more than the {longest} bytes that a table's can have; shorten it")
        kind = self.settings.vector_type
        if self.settings.method == "hnsw" and width > MOST_DIMENSIONS[kind]:
            other = f"index.vector_type=halfvec (up to {MOST_DIMENSIONS['halfvec']:,}) or " if kind == "vector" else ""
            raise ValueError(
                f"a graph of pgvector takes {MOST_DIMENSIONS[kind]:,} dimensions of {kind}, and these vectors have "
                f"{width:,}; set {other}index.method=exact"
            )

    def collections(self, bundle: str) -> Mapping[str, Description | None]:
        """Return the tables of a bundle's name, with their comments."""
        found = self._connections.read(
            lambda connection: connection.execute(
                "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r' "
                "AND starts_with(c.relname, %s) ORDER BY c.oid",
                (self.settings.schema, bundle + SEPARATOR),
            ).fetchall()
        )
        numbered = ((name, comment) for name, comment in found if name[len(bundle + SEPARATOR) :].isdecimal())
        return {name: Description.of(comment) for name, comment in numbered}

    def create(self, name: str, width: int, description: Description) -> None:
        """Make an empty table."""
        statement = (
            'CREATE TABLE {} (position bigint PRIMARY KEY, id text NOT NULL, title text, "text" text, metadata jsonb, '
            f"embedding {self.settings.vector_type}({int(width)}) NOT NULL)"
        )
        self._write(statement, name)
        self.describe(name, description)

    def rename(self, name: str, new: str) -> None:
        """Give a table another name."""
        from psycopg import sql

        self._write("ALTER INDEX IF EXISTS {} RENAME TO {new}", _graph(name), new=sql.Identifier(_graph(new)))
        self._write("ALTER TABLE {} RENAME TO {new}", name, new=sql.Identifier(new))

    def describe(self, name: str, description: Description) -> None:
        """Comment on a table."""
        from psycopg import sql

        self._write("COMMENT ON TABLE {} IS {text}", name, text=sql.Literal(description.text()))

    def count(self, name: str) -> int:
        """Return how many rows a table has."""
        statement = self._named("SELECT count(*) FROM {}", name)
        return int(self._connections.read(lambda connection: connection.execute(statement).fetchall())[0][0])

    def width(self, name: str) -> int:
        """Return how many dimensions the column of vectors has."""
        statement = "SELECT atttypmod FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'embedding'"
        table = self._named("{}", name).as_string()
        found = self._connections.read(lambda connection: connection.execute(statement, (table,)).fetchall())
        return int(found[0][0]) if found else 0

    def add(self, name: str, first: int, vectors: np.ndarray, documents: pa.Table) -> None:
        """Copy documents into a table, in one transaction."""
        statement = self._named(
            'COPY {} (position, id, title, "text", metadata, embedding) FROM STDIN WITH (FORMAT BINARY)', name
        )
        types = ["int8", "text", "text", "text", "jsonb", self.settings.vector_type]
        converted = self._converter()

        def work(connection: Connection[Any]) -> None:
            from psycopg.types.json import Jsonb

            with connection.transaction(), connection.cursor().copy(statement) as copy:
                copy.set_types(types)
                for row, (vector, document) in enumerate(zip(vectors, documents.to_pylist(), strict=True), first):
                    texts = (_stored(document.get(column)) for column in ("_id", "title", "text"))
                    beside = Jsonb(metadata(document), dumps=_json)
                    copy.write_row((row, *texts, beside, converted(vector)))

        self._connections.write(work, "what was written before is kept, and the same command continues with it")

    def finish(self, name: str) -> None:
        """Build the graph, where there is to be one, and count what the planner goes by."""
        from psycopg import sql

        given = self.settings
        if given.method == "hnsw":
            log.info("%s: building the graph of %s", self.place, name)
            self._write(
                f"CREATE INDEX IF NOT EXISTS {{graph}} ON {{}} USING hnsw (embedding {given.vector_type}_ip_ops) "
                f"WITH (m = {given.m}, ef_construction = {given.ef_construction})",
                name,
                graph=sql.Identifier(_graph(name)),
            )
        self._write("ANALYZE {}", name)

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of k documents that are likely to have the highest inner products: [Q, D] → [Q, k]."""
        statement = self._named(
            f"SELECT position FROM {{}} ORDER BY embedding <#> %b::{self.settings.vector_type} LIMIT %b", name
        )
        converted = self._converter()
        asked = [(converted(query), k) for query in queries]
        limits = (str(min(DEEPEST, max(self.settings.ef_search, k))), f"{1000 * self.settings.timeout:.0f}")

        def work(connection: Connection[Any]) -> np.ndarray:
            found = np.full((len(queries), k), NOTHING)
            with connection.transaction(), connection.cursor(binary=True) as cursor:
                cursor.execute(
                    "SELECT set_config('hnsw.ef_search', %s, true), set_config('statement_timeout', %s, true), "
                    "set_config('hnsw.iterative_scan', 'relaxed_order', true)",
                    limits,
                )
                cursor.executemany(statement, asked, returning=True)
                for query in range(len(asked)):
                    rows = cursor.fetchall()
                    found[query, : len(rows)] = [row for (row,) in rows]
                    cursor.nextset()
            return found

        return self._connections.read(work)

    def shown(self, alias: str) -> str | None:
        """Return the name of the table that a view names.

        Raises:
            UserError: a table or something else has the view's name.
        """
        statement = (
            "SELECT v.relkind, (SELECT t.relname FROM pg_rewrite r JOIN pg_depend d ON d.objid = r.oid "
            "JOIN pg_class t ON t.oid = d.refobjid WHERE r.ev_class = v.oid AND d.refclassid = 'pg_class'::regclass "
            "AND t.oid <> v.oid LIMIT 1) FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace "
            "WHERE n.nspname = %s AND v.relname = %s"
        )
        found = self._connections.read(
            lambda connection: connection.execute(statement, (self.settings.schema, alias)).fetchall()
        )
        if not found:
            return None
        [(kind, table)] = found
        if kind != "v":
            raise UserError(
                f"{self.place} has something called {alias} that is no view; rename the bundle (bundle.name), or set "
                "index.schema"
            )
        return str(table)

    def show(self, alias: str, name: str) -> None:
        """Let a view name a table, in one transaction; who may read the view stays as it is where types do."""
        from psycopg import errors, sql

        select = 'SELECT position, id, title, "text", metadata, embedding::{type} AS embedding FROM {table}'
        parts = {
            "view": sql.Identifier(self.settings.schema, alias),
            "table": sql.Identifier(self.settings.schema, name),
            "type": sql.SQL(self.settings.vector_type),
        }
        replaced = sql.SQL("CREATE OR REPLACE VIEW {view} AS " + select).format(**parts)
        again = [
            sql.SQL("DROP VIEW {view}").format(**parts),
            sql.SQL("CREATE VIEW {view} AS " + select).format(**parts),
        ]

        def work(connection: Connection[Any]) -> None:
            try:
                connection.execute(replaced)
            except errors.InvalidTableDefinition:  # another type of vectors
                with connection.transaction():
                    for statement in again:
                        connection.execute(statement)
                log.warning(
                    "%s: the view %s was dropped and made again; grant others the right to read it", self.place, alias
                )

        self._connections.write(work, f"the view {alias} is as it was")

    def drop(self, name: str) -> None:
        """Remove a table."""
        self._write("DROP TABLE IF EXISTS {}", name)

    @property
    def _connections(self) -> PostgresConnections:
        given = self.settings
        return PostgresConnections(
            self.place, given.host, given.port, given.database, given.user, given.key_variable, given.timeout
        )

    def _converter(self) -> Callable[[np.ndarray], Any]:
        from pgvector import HalfVector, Vector

        found: Callable[[np.ndarray], Any] = Vector if self.settings.vector_type == "vector" else HalfVector
        return found

    def _named(self, statement: str, name: str, **parts: Composable) -> Composed:
        """Return a statement with a table's name for its empty braces, and other parts for theirs."""
        from psycopg import sql

        return sql.SQL(statement).format(sql.Identifier(self.settings.schema, name), **parts)

    def _write(self, statement: str, name: str, **parts: Composable) -> None:
        named = self._named(statement, name, **parts)
        self._connections.write(lambda connection: connection.execute(named), "start the command again when it does")


def _graph(table: str) -> str:
    """Return the name of a table's graph."""
    return f"{table}_hnsw"


def _stored(text: str | None) -> str | None:
    """Return a text as PostgreSQL can keep it: it has no NUL."""
    return None if text is None else text.replace("\x00", "")


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False).replace("\\u0000", "")
