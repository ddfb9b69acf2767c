"""The record of every request for queries, on disk before it is sent and again when it is answered.

A journal is one SQLite file in WAL mode, which any number of processes of one machine share. A request is `planned`,
then `sent` by one of them, then `answered`, `malformed` (no try gave queries) or `refused` (the server said no).
Nothing that was answered is asked for again. What a killed process had sent is found by the lock that it no longer
holds: those requests are planned again, and their reservations stay charged.

Every request is known by a digest of all that its answer depends on, so the journal serves any number of data sets.
SQLite's WAL mode needs shared memory: a journal on a network drive belongs to one machine.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock

from embfit.errors import UserError, is_disk_full
from embfit.generator.budget import Budget, Spending
from embfit.generator.journal_owners import JournalOwner
from embfit.generator.journal_tables import TABLES, VERSION, Claim, JournalAnswer, JournalEntry, Outcome, State

FILE = "journal.sqlite"  # in a folder of journals
PATIENCE = 60.0  # seconds that a transaction waits for that of another process


class Journal:
    """The requests of any number of data sets; a context manager.

    Args:
        path: the SQLite file; made, with its folder, when the journal is entered.
    """

    @classmethod
    def at(cls, named: str | None, folder: Path) -> Self:
        """Return the journal in a file that is named, or else the one in a folder; folders are made."""
        path = Path(named).expanduser() if named else folder / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner = JournalOwner(path.with_name(f"{path.name}-owners"))
        self._opened: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self._owner.acquire()
        try:
            self._opened = self._open()
        except BaseException:
            self._owner.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._owner.release()

    def _open(self) -> sqlite3.Connection:
        with self._naming(), FileLock(self.path.with_name(f"{self.path.name}-opening")):  # WAL is set once, by one
            database = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                self._set_up(database)
            except BaseException:
                database.close()
                raise
        return database

    def _set_up(self, database: sqlite3.Connection) -> None:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")  # an answer that was paid for survives a power cut
            [version] = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise UserError(
                    f"{self.path} was written by another version of embfit (its tables are of version {version}, these "
                    f"of {VERSION}); name another file: generator.journal=FILE"
                )
            database.executescript(TABLES)
            database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("CREATE TEMP TABLE wanted (id TEXT PRIMARY KEY) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            if is_disk_full(error) or isinstance(error, sqlite3.OperationalError):
                raise
            raise UserError(
                f"{self.path} is not a journal ({error}); move it, or name another: generator.journal=FILE"
            ) from error

    def plan(
        self,
        entries: Sequence[JournalEntry],
        scope: str,
        again: Iterable[State] = (),
        most_malformed: int | None = None,
    ) -> int:
        """Write down what is to be asked for; what is known already stays as it is.

        Args:
            entries: all requests of a data set.
            scope: identifies the data set: its processes share one budget.
            again: ask again for requests in these states, `malformed` or `refused`.
            most_malformed: the number of malformed answers to a request, in all runs, after which it is not asked for
                again; None for no limit.

        Returns:
            The number of requests that are asked for again.
        """
        states = sorted(set(again) & {"malformed", "refused"})
        with self._transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO requests (id, family, count, document, style, model) VALUES (?, ?, ?, ?, ?, ?)",
                [(e.id, e.family, e.count, e.document, e.style, e.model) for e in entries],
            )
            database.execute("DELETE FROM wanted")
            database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(entry.id,) for entry in entries])
            marks = ", ".join("?" * len(states))
            reopened = database.execute(
                f"UPDATE requests SET state = 'planned' WHERE state IN ({marks}) AND id IN (SELECT id FROM wanted) "
                "AND (state != 'malformed' OR (SELECT count(*) FROM attempts WHERE request = requests.id "
                "AND outcome = 'malformed') < coalesce(?, 1e9))",
                [*states, most_malformed],
            ).rowcount
            database.execute(
                "INSERT OR REPLACE INTO spending SELECT ?, coalesce(sum(requests), 0), coalesce(sum(tokens), 0), "
                "coalesce(sum(cost), 0) FROM attempts WHERE request IN (SELECT id FROM wanted)",
                [scope],
            )
        self.release_lost()
        return reopened

    def adopt_answers(self, path: Path) -> int:
        """Copy the answers of another journal that this one lacks, and return their number.

        Their cost is not charged here, because another machine's budget has paid for them.

        Args:
            path: the other journal's file, which no process writes to now.

        Raises:
            UserError: there is no such file, or it is not a journal of this version.
        """
        if not path.is_file():
            raise UserError(f"{path}: there is no such journal (generator.answers_from)")
        if path.samefile(self.path):
            raise UserError(f"{path} is the journal of this run; leave it out of generator.answers_from")
        try:
            self._database.execute("ATTACH ? AS other", [str(path)])
            [version] = self._database.execute("PRAGMA other.user_version").fetchone()
            [tables] = self._database.execute("SELECT count(*) FROM other.sqlite_master WHERE name = 'requests'")
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} is not a journal ({error}; generator.answers_from)") from error
        try:
            if (version, *tables) != (VERSION, 1):
                raise UserError(f"{path} is not a journal of this version of embfit (generator.answers_from)")
            with self._transaction() as database:
                return database.execute(
                    "INSERT INTO requests (id, family, count, document, style, model, state, text) "
                    "SELECT id, family, count, document, style, model, state, text FROM other.requests "
                    "WHERE state = 'answered' ON CONFLICT (id) DO UPDATE SET state = 'answered', text = excluded.text "
                    "WHERE requests.state NOT IN ('sent', 'answered')"
                ).rowcount
        finally:
            self._database.execute("DETACH other")

    def release_lost(self) -> int:
        """Plan again what processes had sent that are no more; return how many requests that are.

        Their reservations stay charged: nobody knows whether the server has answered.
        """
        rows = self._database.execute("SELECT DISTINCT owner FROM requests WHERE owner IS NOT NULL").fetchall()
        dead = [owner for (owner,) in rows if not self._owner.is_alive(owner)]
        released = 0
        for owner in dead:
            with self._transaction() as database:
                found = database.execute(
                    "UPDATE requests SET state = 'planned', owner = NULL WHERE owner = ? AND state = 'sent'", [owner]
                )
                released += found.rowcount
            self._owner.forget(owner)
        return released

    def claim(self, request: str, reserved: Spending, budget: Budget, scope: str) -> Claim:
        """Take a request for this process to send, if nobody else has and the budget has room; reserve its cost.

        Args:
            request: its id.
            reserved: the most that it can cost.
            budget: the limits of the data set.
            scope: identifies the data set.
        """
        with self._transaction() as database:
            [state] = database.execute("SELECT state FROM requests WHERE id = ?", [request]).fetchone()
            if state != "planned":
                return Claim(state)
            spent = self._spent(database, scope)
            if refusal := budget.refusal(spent, reserved):
                return Claim(state, refusal=refusal)
            attempt = database.execute(
                "INSERT INTO attempts (request, started, requests, tokens, cost) VALUES (?, ?, ?, ?, ?)",
                [request, time.time(), reserved.requests, reserved.tokens, reserved.cost],
            ).lastrowid
            database.execute("UPDATE requests SET state = 'sent', owner = ? WHERE id = ?", [self._owner.name, request])
            self._charge(database, scope, reserved, Spending())
        return Claim(state, attempt)

    def record(
        self,
        attempt: int,
        scope: str,
        outcome: Outcome,
        state: State,
        text: str,
        spent: Spending | None = None,
        seconds: float | None = None,
    ) -> None:
        """Write down how an attempt ended.

        Args:
            attempt: the number that `claim` gave.
            scope: identifies the data set.
            outcome: how the attempt ended.
            state: the request's state from now on; `planned` where it is to be asked again.
            text: what came back; the request's answer, or refusal, unless it is planned again.
            spent: what the attempt has cost; None where that is not known, and its reservation stays charged.
            seconds: how long it took; None for the time since the claim.
        """
        with self._transaction() as database:
            request, *reserved = database.execute(
                "SELECT request, requests, tokens, cost FROM attempts WHERE attempt = ?", [attempt]
            ).fetchone()
            cost = spent or Spending(*reserved)
            database.execute(
                "UPDATE attempts SET outcome = ?, seconds = coalesce(?, ? - started), requests = ?, tokens = ?, "
                "cost = ?, text = ? WHERE attempt = ?",
                [
                    *(outcome, seconds, time.time(), cost.requests, cost.tokens, cost.cost),
                    *(None if outcome == "answered" else text, attempt),
                ],
            )
            kept = None if state == "planned" else text
            database.execute(
                "UPDATE requests SET state = ?, owner = NULL, text = ? WHERE id = ?", [state, kept, request]
            )
            self._charge(database, scope, cost, Spending(*reserved))

    def reopen(self, requests: Sequence[str]) -> None:
        """Plan again what a server has refused."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE requests SET state = 'planned', text = NULL WHERE id = ? AND state = 'refused'",
                [(request,) for request in requests],
            )

    def spent(self, scope: str) -> Spending:
        """Return what the requests of a data set have cost, with what is reserved."""
        return self._spent(self._database, scope)

    @property
    def version(self) -> int:
        """A number that changes when another process has changed the journal."""
        [number] = self._database.execute("PRAGMA data_version").fetchone()
        return int(number)

    def answer(self, entry: JournalEntry) -> JournalAnswer:
        """Return what is known of a request; an answer of its family with as many queries or more serves as its own."""
        found = self._database.execute(
            "SELECT id, state, text FROM requests "
            "WHERE id = ?1 OR (family = ?2 AND count >= ?3 AND state = 'answered') "
            "ORDER BY state != 'answered', id != ?1, count LIMIT 1",
            [entry.id, entry.family, entry.count],
        ).fetchone()
        return JournalAnswer(entry.id, "planned", None) if found is None else JournalAnswer(*found)

    def outcomes(self, request: str) -> list[str]:
        """Return how the attempts at a request ended, oldest first; `sent` where that is not known."""
        rows = self._database.execute("SELECT outcome FROM attempts WHERE request = ? ORDER BY attempt", [request])
        return [outcome for (outcome,) in rows]

    def seconds_per_answer(self, model: str) -> float | None:
        """Return how long a model's last hundred answers took on average, None where it has given none."""
        [seconds] = self._database.execute(
            "SELECT avg(seconds) FROM (SELECT seconds FROM attempts JOIN requests ON request = id "
            "WHERE outcome = 'answered' AND model = ? ORDER BY attempt DESC LIMIT 100)",
            [model],
        ).fetchone()
        return None if seconds is None else float(seconds)

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            raise RuntimeError("the journal is entered with `with` before it is used")
        return self._opened

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the journal against all other writers while the block runs; undo all of it if it fails."""
        database = self._database
        with self._naming():
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # a full disk ends it by itself
                    database.execute("ROLLBACK")
                raise

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Tell a full disk, and a file that cannot be written, by the journal's name."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if is_disk_full(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
            raise UserError(f"{self.path} cannot be used: {error}") from error

    @staticmethod
    def _spent(database: sqlite3.Connection, scope: str) -> Spending:
        found = database.execute("SELECT requests, tokens, cost FROM spending WHERE scope = ?", [scope]).fetchone()
        return Spending(*found) if found else Spending()

    @staticmethod
    def _charge(database: sqlite3.Connection, scope: str, now: Spending, before: Spending) -> None:
        database.execute(
            "UPDATE spending SET requests = requests + ?, tokens = tokens + ?, cost = cost + ? WHERE scope = ?",
            [now.requests - before.requests, now.tokens - before.tokens, now.cost - before.cost, scope],
        )
