"""`--explain`: prints each value, where it was written, and which values it replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embfit.compose.values import shown
from embfit.errors import ConfigError
from embfit.suggestions import suggestion

WIDEST = 36  # the widest column; a longer cell moves the rest of its line to the right


def value_table(record: Mapping[str, Any], key: str = "") -> str:
    """Return a run's record of origins as text.

    Args:
        record: what `Origins.record` returns.
        key: the key at which, and below which, values are shown.

    Raises:
        ConfigError: there is nothing at the key.
    """
    choices = [_cells(group, entry) for group, entry in record["choices"].items() if _within(group.split("@")[-1], key)]
    values = [_cells(name, entry) for name, entry in record["values"].items() if _within(name, key)]
    if not choices and not values:
        known = {name.rsplit(".", depth)[0] for name in record["values"] for depth in range(name.count(".") + 1)}
        raise ConfigError(f"{key}: there is no such key{suggestion(key, known)}")
    blocks = [aligned(rows) for rows in (choices, values) if rows]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the rows as lines whose cells stand below each other."""
    widths = [min(max(map(len, column)), WIDEST) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def headed(heading: str, rows: Sequence[tuple[str, ...]]) -> str:
    """Return a heading with aligned rows below it, or a line that there is no difference."""
    return "\n".join([f"{heading}:", *(f"  {line}" for line in aligned(rows))]) if rows else f"{heading}: no difference"


def _within(name: str, key: str) -> bool:
    return not key or name == key or name.startswith(f"{key}.")


def _cells(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    source = str(entry["source"])
    if "written" in entry:
        source += f" as {entry['written']}"
    for other in entry.get("overrode", ()):
        source += f", over {shown(other['value'])} in {other['source']}"
    return name, shown(entry["value"]), source
