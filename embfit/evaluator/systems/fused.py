"""Several systems made into one, such as vectors and words: hybrid search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import Field

from embfit.evaluator.fusion import reciprocal_ranks, weighted_scores
from embfit.evaluator.systems.bench import Bench
from embfit.records import Evaluation, Ranking

Names: TypeAlias = Annotated[Sequence[str], Field(min_length=1)]
Weights: TypeAlias = Sequence[Annotated[float, Field(ge=0)]]


@dataclass(frozen=True)
class RankFusion:
    """Reciprocal ranks of other systems, added up: it needs no tuning, and no scores that can be compared.

    Args:
        of: names of the systems.
        weights: one a system; None weighs them alike. Choose them on a split that is not reported.
        k: how slowly the credit of lower ranks falls.

    Raises:
        ValueError: not one weight a system.
    """

    of: Names = ("base", "bm25")
    weights: Weights | None = None
    k: Annotated[int, Field(ge=1)] = 60

    def __post_init__(self) -> None:
        _check(self.of, self.weights)

    def evaluate(self, name: str, bench: Bench) -> Evaluation:
        """Fuse what the systems found and measure."""
        rankings, weights = _parts(self.of, self.weights, bench)
        return _judged(name, self.of, reciprocal_ranks(rankings, weights, self.k, bench.evaluator.depth), bench)


@dataclass(frozen=True)
class ScoreFusion:
    """Scores of other systems, each list brought to 0 to 1, added up: it keeps how sure each system is.

    Args:
        of: names of the systems.
        weights: one a system; None weighs them alike. Choose them on a split that is not reported.

    Raises:
        ValueError: not one weight a system.
    """

    of: Names = ("base", "bm25")
    weights: Weights | None = None

    def __post_init__(self) -> None:
        _check(self.of, self.weights)

    def evaluate(self, name: str, bench: Bench) -> Evaluation:
        """Fuse what the systems found and measure."""
        rankings, weights = _parts(self.of, self.weights, bench)
        return _judged(name, self.of, weighted_scores(rankings, weights, bench.evaluator.depth), bench)


def _check(of: Names, weights: Weights | None) -> None:
    if weights is not None and len(weights) != len(of):
        raise ValueError(f"weights: {len(weights)} for {len(of)} systems; give one to each")


def _parts(of: Names, weights: Weights | None, bench: Bench) -> tuple[list[Ranking], Sequence[float]]:
    rankings = [bench.evaluation(name).ranking for name in of]
    return rankings, weights or [1 / len(rankings)] * len(rankings)


def _judged(name: str, of: Names, ranking: Ranking, bench: Bench) -> Evaluation:
    seconds = sum(bench.evaluation(part).facts.get("seconds", 0.0) for part in of)
    return bench.judge(name, ranking, {"of": list(of), "seconds": round(seconds, 3)})
