"""Which files a source of documents leaves out, in one line for each reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SHOWN = 3  # files that a line names


class Reason(NamedTuple):
    """Why files are left out, what to do about it, and whether that is a warning."""

    said: str
    remedy: str = ""
    warns: bool = True


REASONS: Mapping[str, Reason] = {
    "unreadable": Reason("cannot be read"),
    "too_large": Reason("exceed data.max_megabytes={max_megabytes}", "split them, or raise the limit"),
    "binary": Reason("contain bytes that are not text", "leave them out with data.exclude"),
    "not_utf8": Reason("are not UTF-8", "convert them, or name their encoding: data.encoding=latin1"),
    "no_reader": Reason("need a reader that is not installed", "pip install 'embfit[documents]'"),
    "malformed": Reason("cannot be parsed", "leave them out with data.exclude, or repair them"),
    "no_text": Reason("contain no text"),
    "links_to_files_read_already": Reason("are links to files that are read already", warns=False),
    "other_formats": Reason("do not have the suffix of a text format", "data.include reads them as text", False),
    "excluded": Reason("are not selected by data.include and data.exclude", warns=False),
    "hidden": Reason("are hidden", "data.include does not reach them", False),
}
"""Reasons by their key in `Collection.facts`, in the order in which they are reported."""


class LeftOutFiles:
    """Files and folders that are not read, by the reason.

    Args:
        max_megabytes: the limit that a reason names.
    """

    def __init__(self, max_megabytes: float) -> None:
        self._max_megabytes = max_megabytes
        self._found: dict[str, list[str]] = {}

    def add(self, reason: str, name: str, detail: str = "") -> None:
        """Count a file.

        Args:
            reason: a key of `REASONS`.
            name: the file's path within the source.
            detail: further information, such as the error.
        """
        self._found.setdefault(reason, []).append(f"{name} ({detail})" if detail else name)

    @property
    def counts(self) -> dict[str, int]:
        """The number of files by reason."""
        return {reason: len(self._found[reason]) for reason in REASONS if reason in self._found}

    def lines(self) -> list[tuple[bool, str]]:
        """One line for each reason, with whether it is a warning."""
        return [(REASONS[reason].warns, self._line(reason)) for reason in self.counts]

    def _line(self, reason: str) -> str:
        said, remedy, _ = REASONS[reason]
        names = self._found[reason]
        named = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
        because = said.format(max_megabytes=f"{self._max_megabytes:g}")
        line = f"files left out because they {because}: {len(names):,} ({named})"
        return f"{line}; {remedy}" if remedy else line
