"""From candidates to negatives: the filters one after the other, then sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from embfit.errors import ConfigError
from embfit.miner import filters
from embfit.miner.candidates import UNRANKED, Candidates
from embfit.miner.examples import TrainingQueries
from embfit.miner.judged_negatives import JUDGED, JudgedNegatives, hardest_judged
from embfit.miner.near_duplicates import dissimilar
from embfit.miner.sampling import Sampling, sample
from embfit.ragged import Ragged
from embfit.random_streams import random_stream
from embfit.records import Collection, Seed

Unreached: TypeAlias = Literal["keep", "drop"]
"""What happens to queries for which a source found no positive."""


@dataclass(frozen=True)
class ChosenNegatives:
    """The candidates of one source that became negatives.

    Args:
        candidates: the candidates of all examples.
        taken: [Q, K], true where a candidate became a negative.
        removed: filter → the number of candidates that it removed after the filters before it.
        ranked: [Q], true where the source ranked documents for the query.
        reached: [Q], true where a positive, or a copy of one, is among the ranked documents.
    """

    candidates: Candidates
    taken: np.ndarray
    removed: Mapping[str, int]
    ranked: np.ndarray
    reached: np.ndarray

    @property
    def unreached(self) -> np.ndarray:
        """[Q], true where the source ranked documents and none of them is a positive."""
        unreached: np.ndarray = self.ranked & ~self.reached
        return unreached


@dataclass(frozen=True)
class Negatives:
    """The negatives of a block of examples: the judged ones, then the mined ones, hardest first.

    Args:
        rows: the document rows of each example's negatives.
        scores: the score of each document in `rows.values`; NaN if its source has none.
        ranks: the rank of each document in `rows.values`; `UNRANKED` if its source has none.
        sources: the name of each document's source, in the order of `rows.values`.
        positive_scores: source → its scores of the examples' `positives.values`. The training set gets those of the
            first source.
        candidates: the number of candidates before filtering.
        removed: filter → the number of candidates that it removed after the filters before it.
        judged_unused: the number of judged negatives beyond the limit per query.
        unreached: [Q], true where documents were ranked and no source found a positive.
        dropped: [Q], true where the example is to be left out of training.
    """

    rows: Ragged
    scores: np.ndarray
    ranks: np.ndarray
    sources: np.ndarray
    positive_scores: Mapping[str, np.ndarray]
    candidates: int
    removed: Mapping[str, int]
    judged_unused: int
    unreached: np.ndarray
    dropped: np.ndarray


@dataclass(frozen=True)
class Selection:
    """The rules by which candidates become negatives; `RankedMiner` documents each of them."""

    negatives: int
    judged: int | None = None
    skip: int = 0
    relative_margin: float | None = None
    absolute_margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    near_duplicate: float | None = None
    unreached: Unreached = "keep"
    sampling: Sampling = "top"
    seed: Seed = 0

    @property
    def key(self) -> Mapping[str, Any]:
        """Everything that the choice depends on; the seed belongs to it only if something is drawn."""
        return {**asdict(self), "seed": None if self.sampling == "top" else self.seed}

    def select(
        self, examples: TrainingQueries, candidates: Candidates, collection: Collection, block: int
    ) -> Negatives:
        """Return the negatives of a block of examples.

        Args:
            examples: the block's training queries.
            candidates: one source's candidates for these queries.
            collection: the collection that the document rows belong to.
            block: the block's number, which seeds its random draws together with the seed.
        """
        random = random_stream("negatives", self.seed, block)
        ties = None if self.sampling == "top" else random  # the key has no seed where nothing is drawn
        judged = hardest_judged(examples.judged, candidates.judged_scores, self.judged, ties)
        quotas = np.maximum(self.negatives - judged.rows.lengths, 0)
        choice = self.choose(examples, candidates, collection, random, quotas)
        dropped = choice.unreached if self.unreached == "drop" else np.zeros(len(examples), bool)
        return joined(judged, [choice], dropped)

    def choose(
        self,
        examples: TrainingQueries,
        candidates: Candidates,
        collection: Collection,
        random: np.random.Generator,
        quotas: np.ndarray,
        taken: Ragged | None = None,
    ) -> ChosenNegatives:
        """Choose among one source's candidates.

        Args:
            examples: the training queries with what is known about them.
            candidates: one source's candidates for these queries.
            collection: the collection that the document rows belong to.
            random: the generator for sampling that draws.
            quotas: [Q], the number of negatives to take at most.
            taken: the document rows of each example that are negatives already; None if there are none.
        """
        passed = candidates.rows >= 0
        removed: dict[str, int] = {}
        for name, passes in self._filters(examples, candidates, collection, taken):
            removed[name] = int((passed & ~passes).sum())
            passed &= passes
        if self.near_duplicate is not None:  # last, since it reads texts
            unlike_positives = dissimilar(candidates.rows, passed, examples.positives, collection, self.near_duplicate)
            removed["near_duplicate"] = int((passed & ~unlike_positives).sum())
            passed &= unlike_positives
        found = sample(passed, quotas, self.sampling, random, candidates.scores)
        ranked = (candidates.ranks != UNRANKED).any(axis=1)
        positive = ~filters.unknown(candidates.rows, examples.positives, collection.document_copies)
        reached = ranked & (positive & (candidates.rows >= 0)).any(axis=1)
        return ChosenNegatives(candidates, found, removed, ranked, reached)

    def _filters(
        self, examples: TrainingQueries, candidates: Candidates, collection: Collection, taken: Ragged | None
    ) -> Iterator[tuple[str, np.ndarray]]:
        rows, scores, copies = candidates.rows, candidates.scores, collection.document_copies
        positive_scores = Ragged(candidates.positive_scores, examples.positives.offsets)
        yield "positive", filters.unknown(rows, examples.positives, copies)
        yield "judged", filters.unknown(rows, examples.judged, copies)
        yield "query_itself", filters.unknown(rows, examples.own, copies)
        yield "repeated_text", filters.first_of_text(rows, copies)
        if taken is not None:
            yield "other_source", filters.unknown(rows, taken, copies)
        if self.skip:
            yield "skip", candidates.ranks > self.skip
        if self.max_score is not None:
            yield "max_score", filters.below(scores, self.max_score)
        if self.min_score is not None:
            yield "min_score", filters.at_least(scores, self.min_score)
        if self.absolute_margin is not None:
            yield (
                "absolute_margin",
                filters.below(scores, filters.absolute_ceilings(positive_scores, self.absolute_margin)),
            )
        if self.relative_margin is not None:
            yield (
                "relative_margin",
                filters.below(scores, filters.relative_ceilings(positive_scores, self.relative_margin)),
            )


def check_window(negatives: int, skip: int, depth: int) -> None:
    """Refuse a range of ranks that is too small for the negatives wanted.

    Raises:
        ConfigError: there are fewer ranks between `skip` and `depth` than negatives wanted.
    """
    if depth - skip < negatives:
        raise ConfigError(
            f"miner.negatives={negatives} exceeds the {max(depth - skip, 0)} ranks between miner.skip={skip} and "
            f"miner.depth={depth}; raise miner.depth"
        )


def joined(judged: JudgedNegatives, choices: Sequence[ChosenNegatives], dropped: np.ndarray) -> Negatives:
    """Put each example's judged negatives before its mined ones, those of the first source before the others'.

    Args:
        judged: the judged negatives of a block of examples.
        choices: the choice of each source over the whole block; at least one, and no two of the same name.
        dropped: [Q], true where the example is to be left out of training.
    """
    places = [np.nonzero(choice.taken) for choice in choices]
    parts = [choice.candidates for choice in choices]
    count = len(judged.scores)
    owners = np.concatenate([judged.rows.owners, *(owner for owner, _ in places)])
    order = np.argsort(owners, kind="stable")  # keeps the order within each example
    found = list(zip(parts, places, strict=True))
    rows = np.concatenate([judged.rows.values, *(part.rows[place] for part, place in found)])
    scores = np.concatenate([judged.scores, *(part.scores[place] for part, place in found)])
    ranks = np.concatenate([np.full(count, UNRANKED), *(part.ranks[place] for part, place in found)])
    names = np.array([JUDGED, *(part.source for part in parts)])
    sources = np.repeat(names, [count, *(len(owner) for owner, _ in places)])
    removed = {
        name if len(choices) == 1 else f"{choice.candidates.source}.{name}": count
        for choice in choices
        for name, count in choice.removed.items()
    }
    reached = np.any([choice.reached for choice in choices], axis=0)
    return Negatives(
        rows=Ragged.from_owners(rows.astype(np.int32)[order], owners[order], len(judged.rows)),
        scores=scores.astype(np.float32)[order],
        ranks=ranks.astype(np.int32)[order],
        sources=sources[order],
        positive_scores={part.source: part.positive_scores for part in parts},
        candidates=sum(int((part.rows >= 0).sum()) for part in parts),
        removed=removed,
        judged_unused=judged.unused,
        unreached=np.any([choice.ranked for choice in choices], axis=0) & ~reached,
        dropped=dropped,
    )
