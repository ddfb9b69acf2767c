"""Negatives from several sources, each with its share: what one source misses, another finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError
from embfit.miner import filters
from embfit.miner.candidates import UNRANKED, Candidates, CandidateSource, Propose, unscored
from embfit.miner.examples import TrainingQueries
from embfit.miner.judged_negatives import JUDGED, MOST_JUDGED, hardest_judged
from embfit.miner.miner import Miner
from embfit.miner.mining import Find, mine
from embfit.miner.selection import ChosenNegatives, Negatives, joined
from embfit.model import Encoder, frozen
from embfit.ragged import Ragged
from embfit.random_streams import random_stream
from embfit.records import Collection, Seed, TrainingSet
from embfit.store import Store

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class BlendMiner:
    """Takes from each of several miners its share of the negatives, each text once.

    The first source's negatives come first, and the training set gets its scores of the positives. If a source has too
    few negatives, no other source fills the gap.

    Args:
        sources: name → miner; the name is recorded as the source of its negatives. Each miner filters and samples by
            its own parameters and gives a query at most its own `negatives`.
        shares: name → the source's share of the negatives, in the order in which sources choose; they add up to 1.
        negatives: the negatives wanted for each query from all sources together; judged negatives come first and count
            towards them.
        judged: the judged negatives per query at most, those that the first source scores highest; None uses all. The
            sources' own limits are not used.
        focus: the name of a source that spends its whole share on the queries that the first source gets most wrong,
            those for which it ranks most documents above a positive. The source is asked about no other query. None
            spreads every share over all queries.
        seed: the seed that spreads shares which are no whole number of negatives per query, and that draws judged
            negatives without a score.

    Raises:
        ConfigError: shares and sources have different names, shares do not add up to 1, or a name is reserved.
    """

    sources: Mapping[str, Miner]
    shares: Mapping[str, Share]
    negatives: Annotated[int, Field(ge=1)] = 4
    judged: Annotated[int, Field(ge=0)] | None = MOST_JUDGED
    focus: str | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.sources.keys() != self.shares.keys() or not self.sources:
            raise ConfigError(
                f"miner.shares names {', '.join(self.shares) or 'nothing'}, and miner.sources names "
                f"{', '.join(self.sources) or 'nothing'}; give each source a share"
            )
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            given = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
            raise ConfigError(f"miner.shares add up to {sum(self.shares.values()):g} ({given}); they must add up to 1")
        if JUDGED in self.sources:
            raise ConfigError(
                f"miner.sources.{JUDGED}: the name is reserved for the data's own negatives; choose another"
            )
        if self.focus is not None and (self.focus not in self.sources or self.focus == next(iter(self.shares))):
            others = list(self.shares)[1:]
            raise ConfigError(
                f"miner.focus={self.focus} is not a source after the first; choose {' or '.join(others) or 'null'}"
            )

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the examples of the training split with the blend's negatives.

        Raises:
            UserError: there is no training pair.
        """
        with frozen(encoder):
            return self._mine(collection, encoder, store)

    def _mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        sources = {name: self.sources[name].source(collection, encoder, store) for name in self.shares}

        def prepare(examples: TrainingQueries) -> Find:
            proposals = {name: source.prepare(examples) for name, source in sources.items()}

            def find(block: TrainingQueries, number: int) -> Negatives:
                return self._find(block, number, proposals, collection)

            return find

        return mine(collection, store, "blend", self._key(sources), prepare, self.negatives)

    def _key(self, sources: Mapping[str, CandidateSource]) -> Mapping[str, Any]:
        parts = {
            name: {"source": source.name, **source.key, **self.sources[name].selection.key}
            for name, source in sources.items()
        }
        return {
            "sources": [[name, part] for name, part in parts.items()],  # in the order in which they choose
            "shares": dict(self.shares),
            "negatives": self.negatives,
            "judged": self.judged,
            "focus": self.focus,
            "seed": self.seed,
        }

    def _find(
        self, block: TrainingQueries, number: int, proposals: Mapping[str, Propose], collection: Collection
    ) -> Negatives:
        random = random_stream("blend", self.seed, number)
        first = next(iter(self.shares))
        found = proposals[first](block)
        judged = hardest_judged(block.judged, found.judged_scores, self.judged, random)
        quotas = np.maximum(self.negatives - judged.rows.lengths, 0)
        split = self._split(quotas, mistakes(block, found, collection.document_copies), random)
        choices: list[ChosenNegatives] = []
        for place, name in enumerate(self.shares):
            miner = self.sources[name]
            if name != first:
                found = self._proposed(name, block, split[name] > 0, proposals[name])
            limits = np.minimum(split[name], miner.negatives)
            taken = _taken(choices, len(block))
            named = replace(found, source=name)  # two sources may be of the same kind
            draws = random_stream("blend source", miner.seed, number, place)
            choices.append(miner.selection.choose(block, named, collection, draws, limits, taken))
        dropped = np.zeros(len(block), bool)
        for name, choice in zip(self.shares, choices, strict=True):
            if self.sources[name].selection.unreached == "drop":
                dropped |= choice.unreached
        return joined(judged, choices, dropped)

    def _split(self, quotas: np.ndarray, mistaken: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the number of negatives that each source gives each query ([Q] by name); they add up to the quotas."""
        left = quotas.copy()
        split: dict[str, np.ndarray] = {}
        if self.focus is not None:
            budget = round(self.shares[self.focus] * int(quotas.sum()))
            order = np.argsort(-mistaken, kind="stable")
            before = np.cumsum(quotas[order]) - quotas[order]
            focused = np.zeros_like(quotas)
            focused[order] = np.clip(budget - before, 0, quotas[order])
            split[self.focus] = focused
            left = quotas - focused
        rest = {name: share for name, share in self.shares.items() if name != self.focus}
        spread = (random.permutation(len(quotas)) + 0.5) / max(len(quotas), 1)  # [Q], evenly over 0 to 1
        total, ends = 0.0, np.floor(spread)
        for place, (name, share) in enumerate(rest.items()):
            total += share / sum(rest.values())
            upto = np.floor((1.0 if place == len(rest) - 1 else total) * left + spread)
            split[name] = (upto - ends).astype(np.int64)
            ends = upto
        return split

    def _proposed(self, name: str, block: TrainingQueries, asked: np.ndarray, propose: Propose) -> Candidates:
        """Ask a source for candidates; the source in focus is asked only about queries that it gives negatives to."""
        if name != self.focus:
            return propose(block)
        places = np.flatnonzero(asked)
        if not len(places):
            return unscored(name, np.empty((len(block), 0), np.int64), block)
        return _spread(propose(block.take(places)), places, block)


def mistakes(examples: TrainingQueries, candidates: Candidates, copies: np.ndarray) -> np.ndarray:
    """Return the number of each query's candidates that are wrong and score above its lowest positive ([Q]).

    Wrong are all documents but the positives, their copies, and those that are the query itself: any source ranks the
    latter first, so they say nothing of how hard a query is.
    """
    unknown = filters.unknown(candidates.rows, examples.positives, copies) & (candidates.rows >= 0)
    unknown &= filters.unknown(candidates.rows, examples.own, copies)
    scores = np.nan_to_num(candidates.positive_scores, nan=-np.inf)  # a positive that is not ranked is below all
    lowest = filters.lowest_of(Ragged(scores, examples.positives.offsets))
    return np.asarray((unknown & (candidates.scores > lowest[:, None])).sum(axis=1))


def _taken(choices: Sequence[ChosenNegatives], count: int) -> Ragged | None:
    """Return the rows that earlier sources have taken for each example; None if there are no earlier sources."""
    if not choices:
        return None
    owners = np.concatenate([np.nonzero(choice.taken)[0] for choice in choices])
    rows = np.concatenate([choice.candidates.rows[choice.taken] for choice in choices])
    order = np.argsort(owners, kind="stable")
    return Ragged.from_owners(rows[order], owners[order], count)


def _spread(found: Candidates, places: np.ndarray, block: TrainingQueries) -> Candidates:
    """Return the candidates of some of a block's examples as candidates of the block; other examples have none."""
    shape = (len(block), found.rows.shape[1])
    rows, ranks = np.full(shape, -1, np.int64), np.full(shape, UNRANKED, np.int32)
    scores = np.full(shape, np.nan, np.float32)
    rows[places], ranks[places], scores[places] = found.rows, found.ranks, found.scores
    asked = np.zeros(len(block), bool)
    asked[places] = True
    positives = np.full(len(block.positives.values), np.nan, np.float32)
    judged = np.full(len(block.judged.values), np.nan, np.float32)
    positives[asked[block.positives.owners]] = found.positive_scores
    judged[asked[block.judged.owners]] = found.judged_scores
    return Candidates(found.source, rows, ranks, scores, positives, judged)
