"""Training pairs without mined negatives: the other documents of a batch are the negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.miner.candidates import unscored
from embfit.miner.examples import TrainingQueries
from embfit.miner.judged import MOST_JUDGED
from embfit.miner.mining import Find, mine
from embfit.miner.selection import Negatives, Selection
from embfit.model import Encoder
from embfit.records import Collection, Seed, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class NoNegatives:
    """Mines nothing; negatives that the data itself names are kept.

    Args:
        judged: of those, per query at most; None for all.
        seed: draws them, where there are more.
    """

    judged: Annotated[int, Field(ge=0)] | None = MOST_JUDGED
    seed: Seed = 0

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training split's positives and judged negatives."""
        selection = Selection(0, self.judged, sampling="uniform", seed=self.seed)

        def find(block: TrainingQueries, number: int) -> Negatives:
            nothing = unscored("none", np.empty((len(block), 0), np.int64), block)
            return selection.select(block, nothing, collection, number)

        def prepare(examples: TrainingQueries) -> Find:
            return find

        return mine(collection, store, "none", selection.key, prepare, 0)
