"""Training pairs without mined negatives: the other documents of a batch are the negatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.miner.candidates import unscored
from embfit.miner.examples import Examples
from embfit.miner.mining import Find, mine
from embfit.miner.selection import Negatives, Selection
from embfit.model import Encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class NoNegatives:
    """Mines nothing; negatives that the data itself names are kept."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training split's positives and judged negatives."""

        def find(block: Examples, number: int) -> Negatives:
            nothing = unscored("none", np.empty((len(block), 0), np.int64), block)
            return Selection(negatives=0).select(block, nothing, collection, number)

        def prepare(examples: Examples) -> Find:
            return find

        return mine(collection, store, "none", {}, prepare, 0)
