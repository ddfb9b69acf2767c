"""No teacher: the encoder learns only from the miner's scores, if any."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoTeacher:
    """Trains nothing, and gives no scores."""
