"""What a seed is: NumPy takes none below 0."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

Seed: TypeAlias = Annotated[int, Field(ge=0)]
