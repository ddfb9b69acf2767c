"""Source files read line by line or row by row; every record comes with the place that error messages name."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet

from embfit.errors import UserError, first_line
from embfit.progress import progress
from embfit.suggestions import lies_beside

Record: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a record stands (`corpus.jsonl:41`) and its fields."""

MEGABYTE = 1 << 20
BLOCK = 4096  # rows


def parted_place(place: str) -> tuple[str, str]:
    """Part the place of a record: `a.csv:7` is `a.csv` and `line 7`, `a.parquet: row 7` is `a.parquet` and `row 7`."""
    source, _, position = place.rpartition(":")
    position = position.strip()
    return source, position if position.startswith("row ") else f"line {position}"


class Records(Protocol):
    """Records that can be read several times: the place of some errors is only sought after all records were read.

    `str(records)` is the name of their file.
    """

    def __iter__(self) -> Iterator[Record]:
        """Read from the start."""


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        UserError: the path is not a file, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def named_path(name: str, key: str) -> Path:
    """Return the path that a key names, its home folder filled in.

    Raises:
        UserError: nothing is there; the message names what lies beside it under a similar name.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    raise UserError(f"{path}: there is no such file or folder ({key}){lies_beside(path)}")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a UTF-8 file, with their line ends, showing progress.

    Raises:
        UserError: the file cannot be read, is UTF-16, or a line is not UTF-8.
    """
    try:
        size, file = path.stat().st_size, path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    with file, progress(f"reading {path.name}", size // MEGABYTE, "MB") as advance:
        read = 0
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise UserError(f"{path}: the file is UTF-16; convert it with `iconv -f utf-16 -t utf-8`")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number}: not UTF-8 (byte {line[error.start]:#04x} at position {error.start + 1}); "
                    f"convert the file, for example with `iconv -f latin1 -t utf-8`"
                ) from error
            before, read = read, read + len(line)
            if read // MEGABYTE > before // MEGABYTE:
                advance(read // MEGABYTE - before // MEGABYTE)


@dataclass(frozen=True)
class JsonLines:
    """A file with one JSON object per line; blank lines are skipped."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Record]:
        """Read from the start."""
        for number, line in read_lines(self.path):
            if line.isspace():
                continue
            place = f"{self.path}:{number}"
            if number == 1 and line.lstrip().startswith("["):
                raise UserError(
                    f"{place}: expected one JSON object per line, got an array; put each object on its own line with "
                    "`jq -c '.[]'`"
                )
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{place}: not valid JSON: {error.msg} at position {error.pos + 1}") from error
            except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
                raise UserError(f"{place}: the JSON cannot be read: {error}") from error
            if not isinstance(record, dict):
                raise UserError(f"{place}: expected one JSON object per line, got {_json_name(record)}")
            yield place, record


DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}  # that spreadsheets write


@dataclass(frozen=True)
class Delimited:
    """A table with a header line: CSV, or TSV. In TSV, quotation marks are ordinary characters."""

    path: Path
    delimiter: str

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Record]:
        """Read from the start."""
        rows = self._rows()
        place, header = next(rows, ("", []))
        if len(header) == 1 and (other := next((sign for sign in DELIMITERS if sign in header[0]), None)):
            raise UserError(
                f"{place}: the header is one column, {header[0]!r}; columns of a {self.path.suffix} file stand between "
                f"{DELIMITERS[self.delimiter]}, and this one has {DELIMITERS[other]}"
            )
        if len(set(header)) < len(header):
            raise UserError(f"{place}: the header names a column twice: {', '.join(header)}")
        for place, row in rows:
            if len(row) != len(header):
                raise UserError(f"{place}: expected {len(header)} columns, got {len(row)}")
            yield place, dict(zip(header, row, strict=True))

    def _rows(self) -> Iterator[tuple[str, list[str]]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.delimiter == "," else csv.QUOTE_NONE
        reader = csv.reader(
            (line for _, line in read_lines(self.path)), delimiter=self.delimiter, quoting=quoting, strict=True
        )
        limit = csv.field_size_limit(sys.maxsize)  # the default refuses documents of more than 128 KB
        try:
            while True:
                place = f"{self.path}:{reader.line_num + 1}"  # a quoted text may span many lines
                row = next(reader, None)
                if row is None:
                    return
                if row:
                    yield place, row
        except csv.Error as error:
            raise UserError(f"{place}: not valid CSV: {error}") from error
        finally:
            csv.field_size_limit(limit)


@dataclass(frozen=True)
class Parquet:
    """A Parquet file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Record]:
        """Read from the start."""
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                row = 0
                for batch in file.iter_batches(BLOCK):
                    for record in batch.to_pylist():
                        row += 1
                        yield f"{self.path}: row {row}", record
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.path}: cannot be read as a Parquet file: {first_line(error)}") from error


def table_of(path: Path) -> Records | None:
    """Return the records of a file whose suffix says that it is a table, None where it says nothing of the kind."""
    match path.suffix.lower():
        case ".jsonl":
            return JsonLines(path)
        case ".csv":
            return Delimited(path, ",")
        case ".tsv":
            return Delimited(path, "\t")
        case ".parquet":
            return Parquet(path)
    return None


def text_of(place: str, record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return a text field of a record; null becomes an empty text, and a whole number (probably an id) its digits.

    Args:
        place: where the record stands, for error messages.
        record: the record's fields.
        key: the name of the field.
        default: what a missing field gives; None makes a missing field an error.

    Raises:
        UserError: the field is missing and there is no default, or it is not a text.
    """
    value = record.get(key, default)
    if isinstance(value, str):
        return value
    if value is None:
        if key in record:
            return ""
        raise UserError(f'{place}: there is no "{key}"; the record has {", ".join(map(str, record)) or "no fields"}')
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(f'{place}: "{key}" must be a text, got {_json_name(value)}')


def _json_name(value: object) -> str:
    names = {bool: "true or false", dict: "an object", list: "a list", str: "a text", float: "a number"}
    return names.get(type(value), type(value).__name__)
