"""Training pairs without mined negatives: the other documents of a batch are the negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from embfit.miner.candidates import unscored
from embfit.miner.examples import TrainingQueries
from embfit.miner.judged_negatives import MOST_JUDGED
from embfit.miner.mining import Find, mine
from embfit.miner.selection import Negatives, Selection
from embfit.model import Encoder
from embfit.records import Collection, Seed, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class NoNegatives:
    """Mines nothing; negatives from the data's own judgements are kept.

    Args:
        judged: the judged negatives per query at most; None uses all.
        seed: the seed by which they are drawn if a query has more.
    """

    finds_negatives: ClassVar[bool] = False

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
