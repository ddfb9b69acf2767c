"""Connections to PostgreSQL with pgvector: one for each thread, made again after it was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from embfit.credentials import read_key
from embfit.errors import UnavailableError, UserError, first_line
from embfit.index.databases.database import refused

if TYPE_CHECKING:
    from psycopg import Connection

OLDEST = (0, 8)  # pgvector's release: iterative scans, without which a graph returns at most ef_search documents

Result = TypeVar("Result")

_connections = threading.local()  # one for each thread and database; versions of a bundle share it


@dataclass(frozen=True)
class PostgresConnections:
    """The connections of a database, one for each thread that asks it.

    Args:
        place: the database, for messages.
        host: the server's name or address, or the folder of its socket.
        port: the server's port.
        database: the database's name.
        user: who connects.
        key_variable: the name of the environment variable that holds the password; None for none.
        timeout: seconds that a connection, or a search, may take.
    """

    place: str
    host: str | None
    port: int
    database: str
    user: str
    key_variable: str | None
    timeout: float

    def read(self, work: Callable[[Connection[Any]], Result]) -> Result:
        """Do work that changes nothing; again, over a new connection, where the old one was lost meanwhile."""
        try:
            return self.write(work, "")
        except _LostError:
            return self.write(work, "ask again")

    def write(self, work: Callable[[Connection[Any]], Result], remedy: str) -> Result:
        """Do work over this thread's connection, once.

        Args:
            work: is given the connection.
            remedy: what to do where the connection is lost meanwhile.

        Raises:
            UnavailableError: the server does not answer, or the connection was lost.
            UserError: the server refuses.
        """
        import psycopg

        connection = self._connection()
        try:
            return work(connection)
        except psycopg.errors.QueryCanceled as error:
            raise UnavailableError(
                f"{self.place} took more than index.timeout={self.timeout:g} s; ask again, or raise it"
            ) from error
        except psycopg.OperationalError as error:
            if not connection.broken:
                raise refused(self.place, first_line(error)) from error  # its disk is full, or memory
            self._forget()
            raise _LostError(f"{self.place} no longer answers ({first_line(error)}); {remedy}") from error
        except psycopg.errors.UndefinedTable as error:
            raise UserError(f"{self.place}: {first_line(error)}; make a new version (task=index)") from error
        except psycopg.Error as error:
            raise refused(self.place, first_line(error)) from error

    def _connection(self) -> Connection[Any]:
        """Return this thread's connection, made and checked when it is first wanted."""
        import psycopg
        from pgvector.psycopg import register_vector

        there: dict[Any, Connection[Any]] = _connections.__dict__.setdefault("there", {})
        key = (self.host, self.port, self.database, self.user, self.key_variable)
        if key in there and not there[key].closed:
            return there[key]
        password = read_key(self.key_variable, "index.key_variable")
        try:
            connection = psycopg.connect(
                host=self.host,
                port=self.port,
                dbname=self.database,
                user=self.user,
                password=password,
                connect_timeout=max(2, round(self.timeout)),
                application_name="embfit",
                autocommit=True,
            )
        except psycopg.Error as error:
            why = first_line(error)
            raise UnavailableError(f"{self.place} cannot be reached: {why}; see index.host and index.port") from error
        try:
            self._check_extension(connection)
            register_vector(connection)
        except BaseException:
            connection.close()
            raise
        there[key] = connection
        return connection

    def _check_extension(self, connection: Connection[Any]) -> None:
        """Make sure that pgvector is there, and new enough.

        Raises:
            UserError: it is not.
        """
        import psycopg

        asked = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        if not (found := connection.execute(asked).fetchall()):  # first: a standby refuses CREATE EXTENSION in any case
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise UserError(
                    f"{self.place} has no pgvector ({first_line(error)}); install it, and run CREATE EXTENSION vector"
                ) from error
            found = connection.execute(asked).fetchall()
        [(release,)] = found
        if tuple(map(int, str(release).split(".")[:2])) < OLDEST:
            raise UserError(
                f"{self.place} has pgvector {release}, and {'.'.join(map(str, OLDEST))} is the oldest that embfit "
                "searches; install a newer one, and run ALTER EXTENSION vector UPDATE"
            )

    def _forget(self) -> None:
        """Close this thread's connections; the next work makes new ones."""
        there: dict[Any, Connection[Any]] = _connections.__dict__.setdefault("there", {})
        for connection in there.values():
            connection.close()
        there.clear()


class _LostError(UnavailableError):
    """A connection that was there is lost."""
