"""What a part of a run counted, as lines of name and value that a person reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from embfit.compose.value_origins import leaves


def fact_rows(facts: Mapping[str, Any], drawn: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return facts as rows of name and value.

    Args:
        facts: by name; those within others are named after both.
        drawn: names of facts that the page shows in another way.
    """
    flat = leaves({name: value for name, value in facts.items() if name not in drawn})
    return [(key.replace("_", " ").replace(".", ", "), shown(value)) for key, value in flat]


def shown(value: Any) -> str:
    """Write a value as a person reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return "none"  # leaves() goes into all others
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return str(value) or "none"
