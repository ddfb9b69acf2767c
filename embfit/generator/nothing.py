"""No generator: the data's own queries are all there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoGenerator:
    """Writes no queries; a task that needs them says so."""
