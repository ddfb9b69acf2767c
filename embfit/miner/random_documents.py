"""Negatives drawn from the whole corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.miner.candidates import Candidates, unscored
from embfit.miner.examples import Examples
from embfit.miner.mining import mine
from embfit.miner.sampling import distinct
from embfit.miner.selection import Selection
from embfit.model import Encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class Random:
    """Draws documents with equal chance, each text once; the encoder plays no part.

    Args:
        negatives: per query at most; judged negatives come first and count.
        seed: of the draw.
    """

    negatives: Annotated[int, Field(ge=1)] = 2
    seed: int = 0

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training set with random negatives."""
        selection = Selection(negatives=self.negatives, sampling="uniform", seed=self.seed)

        def propose(examples: Examples) -> Iterator[Candidates]:
            return self.candidates(examples, collection)

        return mine(collection, store, "random", selection.key, propose, selection)

    def candidates(self, examples: Examples, collection: Collection) -> Iterator[Candidates]:
        """Yield for each query as many documents as leave enough when all of its known ones are among them."""
        texts = np.unique(collection.document_copies)  # one document of each text
        random = np.random.default_rng(self.seed)
        for _, block in examples.blocks():
            known = int((block.positives.lengths + block.judged.lengths + block.own.lengths).max())
            drawn = distinct(len(block), len(texts), min(self.negatives + known, len(texts)), random)
            yield unscored("random", texts[drawn], block)
