"""No teacher: the scores of the miner are all there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoTeacher:
    """Trains nothing, and gives no scores."""
