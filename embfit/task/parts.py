"""What tasks ask of the parts that a configuration chooses."""

from __future__ import annotations

from typing import Protocol

from embfit.model import Encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store


class Data(Protocol):
    """A source of documents, queries and judgements."""

    def load(self, store: Store) -> Collection:
        """Return the collection, with its splits cut and leaks removed."""


class Miner(Protocol):
    """Makes training examples with negatives."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training split's examples."""
