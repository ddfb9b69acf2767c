"""No generator: the data's own queries are all there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class NoGenerator:
    """Writes no queries; a task that needs them says so."""

    only_for: ClassVar[str] = "task=generate needs a generator: generator=extractive, or generator=api with a server"
