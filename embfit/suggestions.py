"""Suggestions for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

LISTED = 16  # more names than this are not spelled out


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar name, or None if none is similar."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None


def lies_beside(path: Path) -> str:
    """Return the end of a sentence about a missing path: the similar names in its folder."""
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    meant = next((other for other in sorted(beside) if Path(other).stem == path.stem), nearest(path.name, beside))
    return f"; did you mean {path.with_name(meant)}?" if meant else ""


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence: the most similar name, otherwise all names if there are few, otherwise nothing."""
    known = sorted(set(names))
    if match := nearest(name, known):
        return f"; did you mean '{match}'?"
    return f"; it is one of {', '.join(known)}" if 0 < len(known) <= LISTED else ""
