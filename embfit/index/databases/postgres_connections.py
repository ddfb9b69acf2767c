"""Connections to PostgreSQL with pgvector: one for each thread, opened again after it was lost."""

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

OLDEST = (0, 8)  # the first release of pgvector with iterative scans; without, a graph returns at most ef_search rows

Result = TypeVar("Result")

_connections = threading.local()  # one for each thread and database; versions of a bundle share it


@dataclass(frozen=True)
class PostgresConnections:
    """The connections of a database, one for each thread.

    Args:
        place: the database, for messages.
        host: the server's name or address, or the folder of its socket.
        port: the server's port.
        database: the database's name.
        user: the user that connects.
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
        """Do work that changes nothing; if the connection is lost, do it once more over a new one."""
        try:
            return self.write(work, "")
        except _LostError:
            return self.write(work, "try again")

    def write(self, work: Callable[[Connection[Any]], Result], remedy: str) -> Result:
        """Do work over this thread's connection, once.

        Args:
            work: called with the connection.
            remedy: what to do if the connection is lost, for the message.

        Raises:
            UnavailableError: the server does not answer, or the connection was lost.
            UserError: the server rejects the work.
        """
        import psycopg

        connection = self._connection()
        try:
            return work(connection)
        except psycopg.errors.QueryCanceled as error:
            raise UnavailableError(
                f"{self.place} took more than index.timeout={self.timeout:g} s; try again, or raise the timeout"
            ) from error
        except psycopg.OperationalError as error:
            if not connection.broken:
                raise refused(self.place, first_line(error)) from error  # such as a full disk
            self._forget()
            raise _LostError(f"the connection to {self.place} was lost ({first_line(error)}); {remedy}") from error
        except psycopg.errors.UndefinedTable as error:
            raise UserError(f"{self.place}: {first_line(error)}; make a new version (task=index)") from error
        except psycopg.Error as error:
            raise refused(self.place, first_line(error)) from error

    def _connection(self) -> Connection[Any]:
        """Return this thread's connection, opened and checked at its first use."""
        import psycopg
        from pgvector.psycopg import register_vector

        connections = self._of_this_thread()
        key = (self.host, self.port, self.database, self.user, self.key_variable)
        if key in connections and not connections[key].closed:
            return connections[key]
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
        connections[key] = connection
        return connection

    def _check_extension(self, connection: Connection[Any]) -> None:
        """Check that pgvector is installed and recent enough, and create the extension if necessary.

        Raises:
            UserError: it is missing, or too old.
        """
        import psycopg

        statement = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        if not (found := connection.execute(statement).fetchall()):  # first, since a standby rejects CREATE EXTENSION
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise UserError(
                    f"{self.place} has no pgvector ({first_line(error)}); install it, and run CREATE EXTENSION vector"
                ) from error
            found = connection.execute(statement).fetchall()
        [(release,)] = found
        if tuple(map(int, str(release).split(".")[:2])) < OLDEST:
            raise UserError(
                f"{self.place} has pgvector {release}, and embfit needs {'.'.join(map(str, OLDEST))} or newer; install "
                "it, and run ALTER EXTENSION vector UPDATE"
            )

    def _forget(self) -> None:
        """Close this thread's connections; they are opened again when they are needed."""
        connections = self._of_this_thread()
        for connection in connections.values():
            connection.close()
        connections.clear()

    def _of_this_thread(self) -> dict[Any, Connection[Any]]:
        """Return this thread's connections to all databases, by address and user."""
        found: dict[Any, Connection[Any]] = _connections.__dict__.setdefault("by_address", {})
        return found


class _LostError(UnavailableError):
    """An open connection was lost."""
