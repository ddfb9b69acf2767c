"""Several systems made into one, such as vectors and words: hybrid search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from embfit.errors import UserError
from embfit.evaluator.fusion import reciprocal_ranks, weighted_scores
from embfit.evaluator.judging import judgements
from embfit.evaluator.metrics import mean, per_query
from embfit.evaluator.systems.context import EvaluationContext
from embfit.records import Evaluation, Ranking

Names: TypeAlias = Annotated[Sequence[str], Field(min_length=1)]
Weights: TypeAlias = Sequence[Annotated[float, Field(ge=0)]]
TENTHS = 10  # steps of the grid of weights


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

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Fuse what the systems found and measure."""
        rankings, weights = _parts(self.of, self.weights, context)
        return _judged(name, self.of, reciprocal_ranks(rankings, weights, self.k, context.judging.depth), context)


@dataclass(frozen=True)
class ScoreFusion:
    """Scores of other systems, each list brought to 0 to 1, added up: it keeps how sure each system is.

    Args:
        of: names of the systems.
        weights: one a system; None weighs them alike. `tuned` takes those that reach most of the evaluator's first
            metric on its `dev_split`, of all tenths that add up to 1.

    Raises:
        ValueError: not one weight a system.
    """

    of: Names = ("base", "bm25")
    weights: Weights | Literal["tuned"] | None = None

    def __post_init__(self) -> None:
        _check(self.of, None if self.weights == "tuned" else self.weights)

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Fuse what the systems found and measure.

        Raises:
            UserError: weights are to be tuned, and there is no other split with judgements.
        """
        if self.weights == "tuned":
            facts = _tuned(name, self.of, context)
            given = facts["weights"]
        else:
            facts, given = {}, self.weights
        rankings, weights = _parts(self.of, given, context)
        return _judged(name, self.of, weighted_scores(rankings, weights, context.judging.depth), context, facts)


def _check(of: Names, weights: Weights | None) -> None:
    if weights is not None and len(weights) != len(of):
        raise ValueError(f"weights: {len(weights)} for {len(of)} systems; give one to each")


def _parts(of: Names, weights: Weights | None, context: EvaluationContext) -> tuple[list[Ranking], Sequence[float]]:
    rankings = [context.evaluation(name).ranking for name in of]
    return rankings, weights or [1 / len(rankings)] * len(rankings)


def _tuned(name: str, of: Names, context: EvaluationContext) -> dict[str, Any]:
    """Return the weights that are best on the dev split, of those as good the most even, with what they reach there."""
    split, metric = context.judging.dev_split, context.judging.metrics[0]
    if split in context.judging.splits:
        raise UserError(
            f"evaluator.systems.{name}.weights=tuned: {split!r} is the split that is measured; tune on another one "
            "(evaluator.dev_split)"
        )
    if split not in context.collection.qrels:
        known = ", ".join(sorted(context.collection.qrels))
        raise UserError(
            f"evaluator.systems.{name}.weights=tuned: {context.collection.name} has no split {split!r} to tune on; its "
            f"splits: {known} (evaluator.dev_split)"
        )
    qrels = judgements(context.collection, split)
    dev = context.on(split)
    rankings = [dev.evaluation(part).ranking for part in of]

    def reached(weights: Sequence[float]) -> float:
        fused = weighted_scores(rankings, weights, context.judging.depth)
        return mean(per_query(fused, qrels, [metric])[metric].values())

    best = max(_tenths(len(of)), key=lambda weights: (reached(weights), -sum(weight**2 for weight in weights)))
    return {"weights": list(best), "tuned_on": split, f"dev_{metric}": reached(best)}


def _tenths(count: int) -> Iterator[tuple[float, ...]]:
    """Yield all `count` weights that are tenths and add up to 1."""
    for first in product(range(TENTHS + 1), repeat=count - 1):
        if sum(first) <= TENTHS:
            yield tuple(part / TENTHS for part in (*first, TENTHS - sum(first)))


def _judged(
    name: str, of: Names, ranking: Ranking, context: EvaluationContext, facts: Mapping[str, Any] | None = None
) -> Evaluation:
    seconds = sum(context.evaluation(part).facts.get("seconds", 0.0) for part in of)
    return context.judge(name, ranking, {"of": list(of), "seconds": round(seconds, 3), **(facts or {})})
