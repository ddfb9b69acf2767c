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

MAX_K = 1000  # pgvector's limit of hnsw.ef_search
MOST_DIMENSIONS = {"vector": 2000, "halfvec": 4000}  # of a graph
NAME_BYTES = 63  # PostgreSQL's limit of identifiers; it silently cuts longer ones
SUFFIX_BYTES = len("__000000000_hnsw")  # what a graph's name adds to the bundle's: the version and the method
DESCRIBE = "COMMENT ON TABLE {} IS {text}"

VectorType: TypeAlias = Literal["vector", "halfvec"]
"""The types of pgvector's columns: four bytes a value, or two."""


@dataclass(frozen=True)
class PgvectorBuilder(DatabaseBuilder):
    """A table in PostgreSQL for each version of a bundle, and a view that names the champion's.

    Tables have the columns `position` (the document's row in the version), `id`, `title`, `text`, `metadata` (JSON) and
    `embedding`. Extra `pgvector`; the server needs pgvector 0.8 or newer.

    Args:
        host: the server's name or address, or the folder of its socket.
        port: the server's port.
        database: the database's name.
        user: the user that connects and owns the tables.
        key_variable: the *name* of the environment variable that holds the password; None for none.
        schema: the schema of the tables and the view; it must exist.
        vector_type: how the table stores a value; a graph allows 2,000 dimensions of `vector` and 4,000 of `halfvec`.
        method: a graph that proposes documents (`hnsw`), or no index, so that every vector is compared (`exact`).
        m: links of a document in a layer of the graph.
        ef_construction: how many candidates are examined to place a document in the graph.
        ef_search: the least number of candidates that are examined for a query.
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
        """Return the database, without connecting to it."""
        return PgvectorDatabase(self)


@dataclass(frozen=True)
class PgvectorDatabase:
    """A schema of a PostgreSQL database.

    Args:
        settings: its address, and how its tables are built and searched.
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
    def max_k(self) -> int:
        """The most documents that one search returns."""
        return MAX_K

    def check_fits(self, bundle: str, width: int) -> None:
        """Check that an identifier can hold a bundle's name, and that a graph supports the vectors' dimensions.

        Raises:
            ValueError: the name is too long, or there are too many dimensions.
        """
        longest = NAME_BYTES - SUFFIX_BYTES
        if (length := len(bundle.encode())) > longest:
            raise ValueError(
                f"bundle.name={bundle} has {length} bytes, and a table of PostgreSQL allows {longest}; shorten it"
            )
        kind = self.settings.vector_type
        if self.settings.method == "hnsw" and width > MOST_DIMENSIONS[kind]:
            other = f"index.vector_type=halfvec (up to {MOST_DIMENSIONS['halfvec']:,}) or " if kind == "vector" else ""
            raise ValueError(
                f"a graph of pgvector allows {MOST_DIMENSIONS[kind]:,} dimensions of {kind}, and these vectors have "
                f"{width:,}; set {other}index.method=exact"
            )

    def collections(self, bundle: str) -> Mapping[str, Description | None]:
        """Return the names of all tables of a bundle's name, with the descriptions in their comments."""
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
        """Create an empty table with its description."""
        from psycopg import sql

        statement = (
            'CREATE TABLE {} (position bigint PRIMARY KEY, id text NOT NULL, title text, "text" text, metadata jsonb, '
            f"embedding {self.settings.vector_type}({int(width)}) NOT NULL)"
        )
        self._write(name, statement, DESCRIBE, text=sql.Literal(description.text()))

    def rename(self, name: str, new: str) -> None:
        """Rename a table and its graph."""
        from psycopg import sql

        self._write(
            name,
            "ALTER INDEX IF EXISTS {graph} RENAME TO {new_graph}",
            "ALTER TABLE {} RENAME TO {new}",
            graph=sql.Identifier(self.settings.schema, _graph(name)),
            new_graph=sql.Identifier(_graph(new)),
            new=sql.Identifier(new),
        )

    def describe(self, name: str, description: Description) -> None:
        """Store the description of a table as its comment."""
        from psycopg import sql

        self._write(name, DESCRIBE, text=sql.Literal(description.text()))

    def count(self, name: str) -> int:
        """Return the number of rows of a table."""
        statement = self._named("SELECT count(*) FROM {}", name)
        return int(self._connections.read(lambda connection: connection.execute(statement).fetchall())[0][0])

    def width(self, name: str) -> int:
        """Return the number of dimensions of the vectors' column."""
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

        self._connections.write(work, "earlier batches are kept; run the same command again to continue")

    def finish(self, name: str) -> None:
        """Build the graph, if the method uses one, and collect the planner's statistics."""
        from psycopg import sql

        given = self.settings
        if given.method == "hnsw":
            log.info("%s: building the graph of %s", self.place, name)
            self._write(
                name,
                f"CREATE INDEX IF NOT EXISTS {{graph}} ON {{}} USING hnsw (embedding {given.vector_type}_ip_ops) "
                f"WITH (m = {given.m}, ef_construction = {given.ef_construction})",
                graph=sql.Identifier(_graph(name)),
            )
        self._write(name, "ANALYZE {}")

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of k documents that probably have the highest inner products: [Q, D] → [Q, k]."""
        statement = self._named(
            f"SELECT position FROM {{}} ORDER BY embedding <#> %b::{self.settings.vector_type} LIMIT %b", name
        )
        converted = self._converter()
        parameters = [(converted(query), k) for query in queries]
        limits = (str(min(MAX_K, max(self.settings.ef_search, k))), f"{1000 * self.settings.timeout:.0f}")

        def work(connection: Connection[Any]) -> np.ndarray:
            found = np.full((len(queries), k), NOTHING)
            with connection.transaction(), connection.cursor(binary=True) as cursor:
                cursor.execute(
                    "SELECT set_config('hnsw.ef_search', %s, true), set_config('statement_timeout', %s, true), "
                    "set_config('hnsw.iterative_scan', 'relaxed_order', true)",
                    limits,
                )
                cursor.executemany(statement, parameters, returning=True)
                for query in range(len(parameters)):
                    rows = cursor.fetchall()
                    found[query, : len(rows)] = [row for (row,) in rows]
                    cursor.nextset()
            return found

        return self._connections.read(work)

    def alias_target(self, alias: str) -> str | None:
        """Return the name of the table that a view selects from; None if there is no such view.

        Raises:
            UserError: something that is not a view has the name.
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
                f"{self.place} has something called {alias} that is not a view; rename the bundle (bundle.name), or "
                "set index.schema"
            )
        return str(table)

    def set_alias(self, alias: str, name: str) -> None:
        """Let a view select from a table, in one transaction; its permissions stay unless the column types change."""
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
            except errors.InvalidTableDefinition:  # the type of the vectors has changed
                with connection.transaction():
                    for statement in again:
                        connection.execute(statement)
                log.warning(
                    "%s: the view %s was dropped and created again; grant its readers access again", self.place, alias
                )

        self._connections.write(work, f"the view {alias} may still show another version")

    def drop(self, name: str) -> None:
        """Remove a table."""
        self._write(name, "DROP TABLE IF EXISTS {}")

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
        """Return a statement with a table's name in its empty braces, and other parts in the named ones."""
        from psycopg import sql

        return sql.SQL(statement).format(sql.Identifier(self.settings.schema, name), **parts)

    def _write(self, name: str, *statements: str, **parts: Composable) -> None:
        """Execute statements on a table, in one transaction; `_named` documents the parts."""
        named = [self._named(statement, name, **parts) for statement in statements]

        def work(connection: Connection[Any]) -> None:
            with connection.transaction():
                for statement in named:
                    connection.execute(statement)

        self._connections.write(work, "run the same command again")


def _graph(table: str) -> str:
    """Return the name of a table's graph."""
    return f"{table}_hnsw"


def _stored(text: str | None) -> str | None:
    """Return a text without NUL characters, which PostgreSQL cannot store."""
    return None if text is None else text.replace("\x00", "")


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False).replace("\\u0000", "")
