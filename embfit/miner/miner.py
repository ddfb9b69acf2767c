"""What all miners share: the parameters of the choice among candidates, and the way from a source to a training set.

A miner is a frozen dataclass whose fields are its YAML's keys. Those of the choice are declared here once; a miner adds
its source's own, and says where its candidates come from (`source`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from embfit.miner.candidates import CandidateSource
from embfit.miner.examples import TrainingQueries
from embfit.miner.judged import MOST_JUDGED
from embfit.miner.mining import Find, mine
from embfit.miner.sampling import Sampling
from embfit.miner.selection import Negatives, Selection, Unreached, check_window
from embfit.model import Encoder, frozen
from embfit.records import Collection, Seed, TrainingSet
from embfit.store import Store


@runtime_checkable
class Mines(Protocol):
    """What makes training examples with negatives: any miner, and a blend of several."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training split's examples."""


@dataclass(frozen=True)
class Miner(ABC):
    """A source of candidates and a choice among them.

    Args:
        negatives: wanted for each query; judged negatives come first and count.
        seed: of whatever is drawn.
        judged: judged negatives per query at most, those that the source scores highest; None for all.
    """

    negatives: Annotated[int, Field(ge=1)] = 2
    seed: Seed = 0
    judged: Annotated[int, Field(ge=0)] | None = MOST_JUDGED

    @abstractmethod
    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return where candidates come from; nothing is embedded or searched yet."""

    @property
    @abstractmethod
    def selection(self) -> Selection:
        """How candidates become negatives."""

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training split's examples with negatives, from the store if they were mined before.

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
        negatives: wanted for each query; judged negatives come first and count.
        seed: of `uniform` and `weighted` sampling.
        judged: judged negatives per query at most, those that the source scores highest; None for all.
        skip: ranks left out at the top, where unjudged positives are most likely.
        depth: the last rank looked at.
        relative_margin: a negative scores at most `s - margin·|s|`, where `s` is the lowest score of the query's
            positives; None for no such limit.
        absolute_margin: a negative scores at most `s - margin`; None for no such limit.
        max_score: a negative scores at most this; None for no such limit.
        min_score: a negative scores at least this; None for no such limit.
        near_duplicate: a document that shares this much of its sequences of four words with a positive (Jaccard
            similarity, 0 to 1) is no negative; None for no such limit.
        unreached: what becomes of a query none of whose positives is among the first `depth`: it is kept with its
            negatives, or dropped from training.
        sampling: `top` takes the hardest that are left, `uniform` any of them, `weighted` any, higher scores more
            often.

    Raises:
        ConfigError: fewer ranks lie between `skip` and `depth` than negatives are wanted.
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
        """How candidates become negatives."""
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
