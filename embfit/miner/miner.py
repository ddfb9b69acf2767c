"""What all miners have in common: how they choose among candidates, and how a source becomes a training set.

A miner is a frozen dataclass whose fields are the keys of its YAML. The parameters of the choice are declared here
once. A miner adds its source's own parameters and says where its candidates come from (`source`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from embfit.miner.candidates import CandidateSource
from embfit.miner.examples import TrainingQueries
from embfit.miner.judged_negatives import MOST_JUDGED
from embfit.miner.mining import Find, mine
from embfit.miner.sampling import Sampling
from embfit.miner.selection import Negatives, Selection, Unreached, check_window
from embfit.model import Encoder, frozen
from embfit.records import Collection, Seed, TrainingSet
from embfit.store import Store


@runtime_checkable
class Mines(Protocol):
    """Anything that makes training examples with negatives: a miner, or a blend of several."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the examples of the training split with their negatives."""


@runtime_checkable
class MinesWithScores(Mines, Protocol):
    """A miner that gives positives and negatives a teacher's scores."""

    def score_added(self, training_set: TrainingSet, mined: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return a training set with the teacher's scores of documents that joined it after mining, too.

        Args:
            training_set: what `mine` made, some of whose positives are now documents behind those that were mined.
            mined: the collection that was mined.
            encoder: what the model is before training.
            store: keeps embeddings, words and scores.
        """


@dataclass(frozen=True)
class Miner(ABC):
    """A source of candidates and a choice among them.

    Args:
        negatives: the negatives wanted for each query; judged negatives come first and count towards them.
        seed: the seed of everything that is drawn.
        judged: the judged negatives per query at most, those that the source scores highest; None uses all.
    """

    negatives: Annotated[int, Field(ge=1)] = 2
    seed: Seed = 0
    judged: Annotated[int, Field(ge=0)] | None = MOST_JUDGED

    @abstractmethod
    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return the source of candidates; nothing is embedded or searched yet."""

    @property
    @abstractmethod
    def selection(self) -> Selection:
        """The rules by which candidates become negatives."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the examples of the training split with negatives, from the store if they were mined before.

        Raises:
            UserError: there is no training pair.
        """
        with frozen(encoder):
            return self._mine(collection, encoder, store)

    def _mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        source, selection = self.source(collection, encoder, store), self.selection

        def prepare(examples: TrainingQueries) -> Find:
            propose = source.prepare(examples)

            def find(block: TrainingQueries, number: int) -> Negatives:
                return selection.select(block, propose(block), collection, number)

            return find

        key: dict[str, Any] = {**source.key, **selection.key}
        return mine(collection, store, source.name, key, prepare, self.negatives)


@dataclass(frozen=True)
class RankedMiner(Miner):
    """A miner whose source ranks and scores the corpus for each query.

    Args:
        negatives: the negatives wanted for each query; judged negatives come first and count towards them.
        seed: the seed of `uniform` and `weighted` sampling.
        judged: the judged negatives per query at most, those that the source scores highest; None uses all.
        skip: the number of top ranks to leave out, where unjudged positives are most likely.
        depth: the last rank that candidates are taken from.
        relative_margin: a negative may score at most `s - margin·|s|`, where `s` is the lowest score of the query's
            positives; None sets no such limit.
        absolute_margin: a negative may score at most `s - margin`; None sets no such limit.
        max_score: the highest score that a negative may have; None sets no such limit.
        min_score: the lowest score that a negative may have; None sets no such limit.
        near_duplicate: the Jaccard similarity (0 to 1) of four-word sequences with a positive from which on a document
            is not used as a negative; None sets no such limit.
        unreached: what happens to a query with no positive among its first `depth` documents: it is kept with its
            negatives, or dropped from training.
        sampling: the rule: `top` takes the hardest candidates left, `uniform` any of them with equal chance, `weighted`
            any of them, those with higher scores more often.

    Raises:
        ConfigError: there are fewer ranks between `skip` and `depth` than negatives wanted.
    """

    skip: Annotated[int, Field(ge=0)] = 0
    depth: Annotated[int, Field(ge=1)] = 100
    relative_margin: Annotated[float, Field(ge=0, le=1)] | None = None
    absolute_margin: Annotated[float, Field(ge=0)] | None = None
    max_score: float | None = None
    min_score: float | None = None
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = None
    unreached: Unreached = "keep"
    sampling: Sampling = "top"

    def __post_init__(self) -> None:
        check_window(self.negatives, self.skip, self.depth)

    @property
    def selection(self) -> Selection:
        """The rules by which candidates become negatives."""
        return Selection(
            negatives=self.negatives,
            judged=self.judged,
            skip=self.skip,
            relative_margin=self.relative_margin,
            absolute_margin=self.absolute_margin,
            max_score=self.max_score,
            min_score=self.min_score,
            near_duplicate=self.near_duplicate,
            unreached=self.unreached,
            sampling=self.sampling,
            seed=self.seed,
        )
