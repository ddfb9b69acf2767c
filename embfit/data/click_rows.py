"""The rows of a search log: read, checked, and given to the split that their session or time belongs to."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from embfit.data.files import Record, text_of
from embfit.data.identifiers import id_of
from embfit.errors import UserError

SPLITS = ("train", "dev", "test")  # a query belongs to the first of those that it occurs in


class ClickRow(NamedTuple):
    """A row of a log.

    Args:
        place: where it stands (`log.csv:7`).
        query: the query's text.
        document: the document's text; empty where the log has ids alone.
        title: the document's title.
        id: the document's id, None where the log has none.
        clicks: how often the document was clicked.
        impressions: how often it was shown; 0 where the log does not say.
        position: the rank at which it was shown, None where the log does not say.
        session: what the rows of one session have in common; the row's own place where the log does not say.
        time: in seconds, None where the log does not say.
    """

    place: str
    query: str
    document: str
    title: str
    id: str | None
    clicks: float
    impressions: float
    position: float | None
    session: str
    time: float | None


@dataclass(frozen=True)
class ClickColumns:
    """The names of a log's columns; None where there is none."""

    query: str
    document: str | None
    document_id: str | None
    title: str | None
    clicks: str | None
    impressions: str | None
    position: str | None
    session: str | None
    time: str | None

    def rows(self, records: Iterator[Record], counts: Counter[str]) -> Iterator[ClickRow]:
        """Yield the rows; those with a blank cell that is needed are counted and passed over.

        Raises:
            UserError: a column is missing, or a cell holds what it cannot mean; names its place.
        """
        needed = [name for name in vars(self).values() if name is not None and name != self.title]
        for place, record in records:
            counts["rows"] += 1
            if absent := next((name for name in needed if name not in record), None):
                key = next(key for key, name in vars(self).items() if name == absent)
                raise UserError(f'{place}: no column "{absent}" (data.{key}); there are: {", ".join(record)}')
            if any(_is_blank(record[name]) for name in needed):
                counts["rows_with_blank_cells_skipped"] += 1
                continue
            row = self._row(place, record)
            if self.impressions is not None and row.clicks > row.impressions:
                counts["rows_with_more_clicks_than_impressions"] += 1
                row = row._replace(impressions=row.clicks)
            yield row

    def _row(self, place: str, record: Mapping[str, Any]) -> ClickRow:
        position = None if self.position is None else _number(place, record, self.position, at_least=1)
        return ClickRow(
            place=place,
            query=text_of(place, record, self.query),
            document="" if self.document is None else text_of(place, record, self.document),
            title="" if self.title is None else text_of(place, record, self.title, ""),
            id=None if self.document_id is None else id_of(place, record, self.document_id),
            clicks=1.0 if self.clicks is None else _number(place, record, self.clicks),
            impressions=0.0 if self.impressions is None else _number(place, record, self.impressions),
            position=position,
            session=place if self.session is None else str(record[self.session]),
            time=None if self.time is None else _seconds(place, record[self.time], self.time),
        )


def splits_of_sessions(rows: Iterable[ClickRow], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the split of each session: the last ones in time are test, those before them dev; by lot without times.

    A session is as old as its first row. Shares are of sessions.

    Args:
        rows: all rows of the log.
        shares: the shares of `dev` and `test`.
        seed: draws the lots.
    """
    order: dict[str, float] = {}
    for row in rows:
        drawn = hashlib.blake2b(f"{seed}\0{row.session}".encode(), digest_size=8).digest()
        age = int.from_bytes(drawn, "little") / 2**64 if row.time is None else row.time
        order[row.session] = min(age, order.get(row.session, math.inf))
    ordered = sorted(order, key=lambda session: (order[session], session))
    test = round(shares["test"] * len(ordered))
    dev = round(shares["dev"] * len(ordered))
    first_test, first_dev = len(ordered) - test, len(ordered) - test - dev
    return {
        session: "test" if at >= first_test else "dev" if at >= first_dev else "train"
        for at, session in enumerate(ordered)
    }


def _is_blank(value: object) -> bool:
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def _number(place: str, record: Mapping[str, Any], column: str, at_least: float = 0) -> float:
    value = record[column]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not at_least <= number < math.inf:
        raise UserError(f'{place}: "{column}" must be a number of at least {at_least:g}, got {value!r}')
    return number


def _seconds(place: str, value: object, column: str) -> float:
    """Return a time as seconds: a number, a date and time, or an ISO 8601 text; without a zone it is UTC."""
    time = value
    if isinstance(value, str):
        with suppress(ValueError):
            time = datetime.fromisoformat(value.strip())
        with suppress(ValueError):
            time = float(value)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, int | float) and not isinstance(time, bool) and math.isfinite(time):
        return float(time)
    raise UserError(f'{place}: "{column}" must be a time such as 2026-05-01T12:00:00Z, or a number, got {value!r}')
