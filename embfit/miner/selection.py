"""From candidates to negatives: filters one after the other, then sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from embfit.errors import ConfigError
from embfit.miner import filters
from embfit.miner.candidates import UNRANKED, Candidates
from embfit.miner.examples import Examples
from embfit.miner.near_duplicates import unlike
from embfit.miner.sampling import Sampling, sample
from embfit.ragged import Ragged
from embfit.records import Collection

JUDGED = "judged"  # source of the negatives that the data itself names

Unreached: TypeAlias = Literal["keep", "drop"]
"""What becomes of queries none of whose positives a source found."""


@dataclass(frozen=True)
class Choice:
    """What was taken of one source's candidates.

    Args:
        candidates: of all the examples.
        taken: [Q, K], true where a candidate became a negative.
        removed: candidates that each filter removed, after those before it.
        reached: [Q], true where a positive is among the candidates; all true for a source that does not rank.
    """

    candidates: Candidates
    taken: np.ndarray
    removed: Mapping[str, int]
    reached: np.ndarray


@dataclass(frozen=True)
class Negatives:
    """The negatives of a block of examples: the judged ones, then the mined ones, hardest first.

    Args:
        rows: document rows by example.
        scores: flat, beside `rows.values`; NaN where the source has none.
        ranks: flat; `UNRANKED` where the source has none.
        sources: flat; names.
        positive_scores: by source, flat, beside the examples' `positives.values`; those of the training set are the
            first source's.
        candidates: how many were looked at.
        removed: those that each filter removed, after those before it.
        unreached: [Q], true where no positive is among the candidates of any source that ranks.
        dropped: [Q], true where the example is to be left out of training.
    """

    rows: Ragged
    scores: np.ndarray
    ranks: np.ndarray
    sources: np.ndarray
    positive_scores: Mapping[str, np.ndarray]
    candidates: int
    removed: Mapping[str, int]
    unreached: np.ndarray
    dropped: np.ndarray


@dataclass(frozen=True)
class Selection:
    """Which candidates become negatives. `RankedMiner` documents each value."""

    negatives: int
    skip: int = 0
    relative_margin: float | None = None
    absolute_margin: float | None = None
    max_score: float | None = None
    near_duplicate: float | None = None
    unreached: Unreached = "keep"
    sampling: Sampling = "top"
    seed: int = 0

    @property
    def key(self) -> Mapping[str, Any]:
        """What the choice depends on: the seed only where something is drawn."""
        return {**asdict(self), "seed": None if self.sampling == "top" else self.seed}

    def select(self, examples: Examples, candidates: Candidates, collection: Collection, block: int) -> Negatives:
        """Return the negatives of a block of examples.

        Args:
            examples: the block.
            candidates: of its queries.
            collection: whose rows they name.
            block: the block's place among all: its random draws are its own.
        """
        choice = self.choose(examples, candidates, collection, (block,))
        dropped = ~choice.reached if self.unreached == "drop" else np.zeros(len(examples), bool)
        return joined(examples, [choice], dropped)

    def choose(
        self,
        examples: Examples,
        candidates: Candidates,
        collection: Collection,
        draw: Sequence[int],
        quotas: np.ndarray | None = None,
        taken: Ragged | None = None,
    ) -> Choice:
        """Choose among one source's candidates.

        Args:
            examples: their queries, with what is known about them.
            candidates: the source's.
            collection: whose rows they name.
            draw: tells this choice's random draws from others of the same seed.
            quotas: [Q], how many to take at most; by default what the judged negatives leave of `negatives`.
            taken: rows that are negatives already, by example.
        """
        passed = candidates.rows >= 0
        removed: dict[str, int] = {}
        for name, passes in self._filters(examples, candidates, collection, taken):
            removed[name] = int((passed & ~passes).sum())
            passed &= passes
        if self.near_duplicate is not None:  # last, since it reads texts
            unlike_positives = unlike(candidates.rows, passed, examples.positives, collection, self.near_duplicate)
            removed["near_duplicate"] = int((passed & ~unlike_positives).sum())
            passed &= unlike_positives
        if quotas is None:
            quotas = np.maximum(self.negatives - examples.judged.lengths, 0)
        random = np.random.default_rng([self.seed, *draw])
        found = sample(passed, quotas, self.sampling, random, candidates.scores)
        return Choice(candidates, found, removed, _reached(examples, candidates, collection.document_copies))

    def _filters(
        self, examples: Examples, candidates: Candidates, collection: Collection, taken: Ragged | None
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
    """Refuse a search that can never find enough.

    Raises:
        ConfigError: fewer ranks are left between skip and depth than negatives are wanted.
    """
    if depth - skip < negatives:
        raise ConfigError(
            f"miner.negatives={negatives} exceeds the {max(depth - skip, 0)} ranks between miner.skip={skip} and "
            f"miner.depth={depth}; raise miner.depth"
        )


def joined(examples: Examples, choices: Sequence[Choice], dropped: np.ndarray) -> Negatives:
    """Put each example's judged negatives before its mined ones, those of the first source before the others'.

    Args:
        examples: the block.
        choices: at least one; each over the whole block.
        dropped: [Q], examples to leave out.
    """
    judged = examples.judged
    places = [np.nonzero(choice.taken) for choice in choices]
    parts = [choice.candidates for choice in choices]
    first = parts[0]
    owners = np.concatenate([judged.owners, *(owner for owner, _ in places)])
    order = np.argsort(owners, kind="stable")  # of one example, what stands first here stays first
    found = list(zip(parts, places, strict=True))
    rows = np.concatenate([judged.values, *(part.rows[place] for part, place in found)])
    scores = np.concatenate([first.judged_scores, *(part.scores[place] for part, place in found)])
    ranks = np.concatenate([np.full(len(judged.values), UNRANKED), *(part.ranks[place] for part, place in found)])
    names = np.array([JUDGED, *(part.source for part in parts)])
    sources = np.repeat(names, [len(judged.values), *(len(owner) for owner, _ in places)])
    removed = {
        name if len(choices) == 1 else f"{choice.candidates.source}.{name}": count
        for choice in choices
        for name, count in choice.removed.items()
    }
    return Negatives(
        rows=Ragged.from_owners(rows.astype(np.int32)[order], owners[order], len(examples)),
        scores=scores.astype(np.float32)[order],
        ranks=ranks.astype(np.int32)[order],
        sources=sources[order],
        positive_scores={part.source: part.positive_scores for part in parts},
        candidates=sum(int((part.rows >= 0).sum()) for part in parts),
        removed=removed,
        unreached=~np.any([choice.reached for choice in choices], axis=0),
        dropped=dropped,
    )


def _reached(examples: Examples, candidates: Candidates, copies: np.ndarray) -> np.ndarray:
    """Tell for which examples a positive, or a copy of one, is among the candidates ([Q] bool)."""
    if not (candidates.ranks != UNRANKED).any():
        return np.ones(len(examples), bool)
    hits = ~filters.unknown(candidates.rows, examples.positives, copies) & (candidates.rows >= 0)
    return np.asarray(hits.any(axis=1))
