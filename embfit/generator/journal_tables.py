"""The tables of a journal, and the records that go in and come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

VERSION = 1  # of the tables

State: TypeAlias = Literal["planned", "sent", "answered", "malformed", "refused"]
Outcome: TypeAlias = Literal["answered", "malformed", "refused", "busy", "failed", "unsent"]

TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY,          -- digest of all that the answer depends on
    family TEXT NOT NULL,         -- digest without what an answer that is there does not depend on
    count INTEGER NOT NULL,       -- queries asked for
    document TEXT NOT NULL,
    style TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'planned',
    owner TEXT,                   -- the process that has sent it
    text TEXT                     -- the model's raw answer, or the server's refusal
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_family ON requests (family, count);
CREATE INDEX IF NOT EXISTS by_owner ON requests (owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS attempts (
    attempt INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    started REAL NOT NULL,
    seconds REAL,
    outcome TEXT NOT NULL DEFAULT 'sent',
    requests INTEGER NOT NULL,    -- these three: reserved, and from the answer on what it has cost
    tokens INTEGER NOT NULL,
    cost REAL NOT NULL,
    text TEXT                     -- what came back where it was no answer
);
CREATE INDEX IF NOT EXISTS by_request ON attempts (request);
CREATE TABLE IF NOT EXISTS spending (scope TEXT PRIMARY KEY, requests INTEGER, tokens INTEGER, cost REAL);
"""


@dataclass(frozen=True)
class JournalEntry:
    """A request as the journal knows it.

    Args:
        id: identifies all that the answer depends on.
        family: identifies the requests whose answers serve each other: of queries, those that differ in their number
            alone, since the first of many are as good; of a judge's grades, those that differ in the limit of tokens
            alone, since a grade that came was not cut off.
        count: the number of queries that are asked for.
        document: the id of the document, for people.
        style: the name of the style, for people.
        model: the name of the model, for people.
    """

    id: str
    family: str
    count: int
    document: str
    style: str
    model: str


@dataclass(frozen=True)
class Claim:
    """What came of the wish to send a request.

    Args:
        state: the request's state before; `planned` where it is this process's to send now.
        attempt: the number under which the attempt is reported back; None where it must not be sent.
        refusal: the limit of the budget that stands in the way.
    """

    state: State
    attempt: int | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class JournalAnswer:
    """What the journal has for a request.

    Args:
        id: the request that was answered: the one asked about, or one of its family with as many queries or more.
        state: how far the request is.
        text: the model's raw answer, or a refusal; None where there is none yet.
    """

    id: str
    state: State
    text: str | None
