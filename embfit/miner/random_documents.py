"""Negatives drawn from the whole corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embfit.miner.candidates import Candidates, CandidateSource, Propose, unscored
from embfit.miner.examples import TrainingQueries
from embfit.miner.miner import Miner
from embfit.miner.sampling import distinct
from embfit.miner.selection import Selection
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store


@dataclass(frozen=True)
class RandomMiner(Miner):
    """Draws documents with equal chance, each text once; the encoder plays no part.

    Args:
        negatives: wanted for each query; judged negatives come first and count.
        seed: of the draw.
        judged: judged negatives per query at most, drawn; None for all.
    """

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return for each query as many documents as leave enough when all of its known ones are among them."""

        def prepare(examples: TrainingQueries) -> Propose:
            texts = np.unique(collection.document_copies)  # one document of each text
            random = np.random.default_rng(self.seed)

            def propose(part: TrainingQueries) -> Candidates:
                known = int((part.positives.lengths + part.judged.lengths + part.own.lengths).max(initial=0))
                drawn = distinct(len(part), len(texts), min(self.negatives + known, len(texts)), random)
                return unscored("random", texts[drawn], part)

            return propose

        return CandidateSource("random", {"seed": self.seed}, prepare)

    @property
    def selection(self) -> Selection:
        """Whatever was drawn and is not known."""
        return Selection(self.negatives, self.judged, sampling="uniform", seed=self.seed)
