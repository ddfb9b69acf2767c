"""From candidates to negatives: filters one after the other, then sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embfit.errors import ConfigError
from embfit.miner import filters
from embfit.miner.candidates import UNRANKED, Candidates
from embfit.miner.examples import Examples
from embfit.miner.sampling import Sampling, sample
from embfit.ragged import Ragged

JUDGED = "judged"  # source of the negatives that the data itself names


@dataclass(frozen=True)
class Negatives:
    """The negatives of a block of examples: the judged ones, then the mined ones, hardest first.

    Args:
        rows: document rows by example.
        scores: flat, beside `rows.values`; NaN where the source has none.
        ranks: flat; `UNRANKED` where the source has none.
        sources: flat; names.
        positive_scores: flat, beside the examples' `positives.values`.
        removed: candidates that each filter removed, after those before it.
    """

    rows: Ragged
    scores: np.ndarray
    ranks: np.ndarray
    sources: np.ndarray
    positive_scores: np.ndarray
    removed: Mapping[str, int]


@dataclass(frozen=True)
class Selection:
    """Which candidates become negatives.

    Args:
        negatives: how many a query gets at most; judged negatives count and are all kept.
        skip: ranks left out at the top.
        relative_margin: a negative scores at most `s - margin·|s|`, `s` being the lowest score of a positive.
        absolute_margin: a negative scores at most `s - margin`.
        max_score: a negative scores at most this.
        sampling: `top` or `uniform`.
        seed: of `uniform`.
    """

    negatives: int
    skip: int = 0
    relative_margin: float | None = None
    absolute_margin: float | None = None
    max_score: float | None = None
    sampling: Sampling = "top"
    seed: int = 0

    @property
    def key(self) -> Mapping[str, Any]:
        """What the choice depends on: the seed only where something is drawn."""
        return {**asdict(self), "seed": self.seed if self.sampling == "uniform" else None}

    def select(self, examples: Examples, candidates: Candidates, copies: np.ndarray, block: int) -> Negatives:
        """Return the negatives of a block of examples.

        Args:
            examples: the block.
            candidates: of its queries.
            copies: for each document row, the first row with its text.
            block: the block's place among all: its random draws are its own.
        """
        passed = candidates.rows >= 0
        removed: dict[str, int] = {}
        for name, passes in self._filters(examples, candidates, copies):
            removed[name] = int((passed & ~passes).sum())
            passed &= passes
        quotas = np.maximum(self.negatives - examples.judged.lengths, 0)
        taken = sample(passed, quotas, self.sampling, np.random.default_rng([self.seed, block]))
        return _joined(examples, candidates, taken, removed)

    def _filters(
        self, examples: Examples, candidates: Candidates, copies: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        rows, scores = candidates.rows, candidates.scores
        positive_scores = Ragged(candidates.positive_scores, examples.positives.offsets)
        yield "positive", filters.unknown(rows, examples.positives, copies)
        yield "judged", filters.unknown(rows, examples.judged, copies)
        yield "query_itself", filters.unknown(rows, examples.own, copies)
        yield "repeated_text", filters.first_of_text(rows, copies)
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


def _joined(examples: Examples, candidates: Candidates, taken: np.ndarray, removed: Mapping[str, int]) -> Negatives:
    """Put each example's judged negatives before its mined ones."""
    judged = examples.judged
    count = len(judged.values)
    mined_owners, _ = np.nonzero(taken)
    owners = np.concatenate([judged.owners, mined_owners])
    order = np.argsort(owners, kind="stable")  # of one example, what stands first here stays first
    rows = np.concatenate([judged.values, candidates.rows[taken]]).astype(np.int32)[order]
    return Negatives(
        rows=Ragged.from_owners(rows, owners[order], len(examples)),
        scores=np.concatenate([candidates.judged_scores, candidates.scores[taken]]).astype(np.float32)[order],
        ranks=np.concatenate([np.full(count, UNRANKED), candidates.ranks[taken]]).astype(np.int32)[order],
        sources=np.where(order < count, JUDGED, candidates.source),
        positive_scores=candidates.positive_scores,
        removed=removed,
    )
