"""Names that choices and keys had before: who still writes one is told the new name."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED: Mapping[str, str] = {
    "miner=taught": "miner=scored",
    "sweep.at_once": "sweep.max_parallel",
}
"""Old name → new name, of choices as `GROUP=CHOICE` and of keys."""


def new_name(old: str) -> str | None:
    """Return the end of a sentence about a name that is no more, None where it never was."""
    return f"is now {RENAMED[old]}" if old in RENAMED else None
