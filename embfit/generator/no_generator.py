"""No generator: only the data's own queries are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class NoGenerator:
    """The choice of no generator; tasks that need one refuse it."""

    only_for: ClassVar[str] = "task=generate needs a generator: generator=extractive, or generator=api with a server"
