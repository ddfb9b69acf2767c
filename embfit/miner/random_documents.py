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
from embfit.random_streams import random_stream
from embfit.records import Collection
from embfit.store import Store


@dataclass(frozen=True)
class RandomMiner(Miner):
    """Draws documents with equal chance, each text once; the encoder is not used.

    Args:
        negatives: the negatives wanted for each query; judged negatives come first and count towards them.
        seed: the seed of the draw.
        judged: the judged negatives per query at most, drawn at random; None uses all.
    """

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return a source that draws enough documents even if all known ones of a query are among them."""

        def prepare(examples: TrainingQueries) -> Propose:
            texts = np.unique(collection.document_copies)  # one document of each text
            random = random_stream("random documents", self.seed)

            def propose(part: TrainingQueries) -> Candidates:
                known = int((part.positives.lengths + part.judged.lengths + part.own.lengths).max(initial=0))
                drawn = distinct(len(part), len(texts), min(self.negatives + known, len(texts)), random)
                return unscored("random", texts[drawn], part)

            return propose

        return CandidateSource("random", {"seed": self.seed}, prepare)

    @property
    def selection(self) -> Selection:
        """The rule that takes every drawn document that is not known for its query."""
        return Selection(self.negatives, self.judged, sampling="uniform", seed=self.seed)
