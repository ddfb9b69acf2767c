"""Training pairs without mined negatives: the other documents of a batch are the negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embfit.miner.candidates import Candidates, unscored
from embfit.miner.examples import Examples
from embfit.miner.mining import mine
from embfit.miner.selection import Selection
from embfit.model import Encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class NoNegatives:
    """Mines nothing; negatives that the data itself names are kept."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training split's positives and judged negatives."""
        return mine(collection, store, "none", {}, self.candidates, Selection(negatives=0))

    def candidates(self, examples: Examples) -> Iterator[Candidates]:
        """Yield blocks without candidates."""
        for _, block in examples.blocks():
            yield unscored("none", np.empty((len(block), 0), np.int64), block)
