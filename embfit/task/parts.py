"""What tasks ask of the parts that a configuration chooses."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from embfit.miner.miner import Mines
from embfit.records import Collection
from embfit.store import Store


class Data(Protocol):
    """A source of documents, queries and judgements."""

    def load(self, store: Store) -> Collection:
        """Return the collection, with its splits cut and leaks removed."""


Miner: TypeAlias = Mines
"""What makes training examples with negatives."""
