"""Several systems fused into one, such as vectors and words: hybrid search."""

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
    """The sum of other systems' reciprocal ranks; it needs neither tuning nor comparable scores.

    Args:
        of: names of the systems.
        weights: one for each system; None weights them equally. Choose them on a split that is not reported.
        k: the larger, the more slowly a document's credit decreases with its rank.

    Raises:
        ValueError: the numbers of weights and systems differ.
    """

    of: Names = ("base", "bm25")
    weights: Weights | None = None
    k: Annotated[int, Field(ge=1)] = 60

    def __post_init__(self) -> None:
        _check_weights(self.of, self.weights)

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Fuse what the systems found and measure."""
        return self.fuse(name, [context.evaluation(part) for part in self.of], context)

    def fuse(self, name: str, parts: Sequence[Evaluation], context: EvaluationContext) -> Evaluation:
        """Fuse existing evaluations of the systems, in the order of `of`, and measure."""
        rankings, weights = [part.ranking for part in parts], self.weights or _equal_weights(len(parts))
        return _judged(name, parts, reciprocal_ranks(rankings, weights, self.k, context.judging.depth), context)


@dataclass(frozen=True)
class ScoreFusion:
    """The sum of other systems' scores, each list scaled to the range from 0 to 1, so that score gaps count.

    Args:
        of: names of the systems.
        weights: one for each system; None weights them equally. `tuned` tries all multiples of 0.1 that sum to 1, and
            takes the best ones by the evaluator's first metric on its `dev_split`.

    Raises:
        ValueError: the numbers of weights and systems differ.
    """

    of: Names = ("base", "bm25")
    weights: Weights | Literal["tuned"] | None = None

    def __post_init__(self) -> None:
        _check_weights(self.of, None if self.weights == "tuned" else self.weights)

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Fuse what the systems found and measure.

        Raises:
            UserError: weights are to be tuned, and there is no separate dev split with judgements.
        """
        if self.weights == "tuned":
            facts = _tuned(name, self.of, context)
            given = facts["weights"]
        else:
            facts, given = {}, self.weights
        parts = [context.evaluation(part) for part in self.of]
        rankings, weights = [part.ranking for part in parts], given or _equal_weights(len(parts))
        return _judged(name, parts, weighted_scores(rankings, weights, context.judging.depth), context, facts)


def fuse_with_words(name: str, model: Evaluation, words: Evaluation, context: EvaluationContext) -> Evaluation:
    """Fuse a model with BM25 and measure, as the system `hybrid` is configured if it fuses these two by rank.

    Otherwise the default `RankFusion` fuses them.

    Args:
        name: the fused system's name in reports.
        model: the model's evaluation.
        words: BM25's evaluation.
        context: the context in which both were measured.
    """
    named = context.systems.get("hybrid")
    default = RankFusion()
    fusion = named if isinstance(named, RankFusion) and tuple(named.of) == tuple(default.of) else default
    return fusion.fuse(name, [model, words], context)


def _check_weights(of: Names, weights: Weights | None) -> None:
    if weights is not None and len(weights) != len(of):
        raise ValueError(f"weights: {len(weights)} for {len(of)} systems; give one for each")


def _equal_weights(count: int) -> list[float]:
    return [1 / count] * count


def _tuned(name: str, of: Names, context: EvaluationContext) -> dict[str, Any]:
    """Return the weights that are best on the dev split, the most even of equally good ones, and their metric there."""
    split, metric = context.judging.dev_split, context.judging.metrics[0]
    if split in context.judging.splits:
        raise UserError(
            f"evaluator.systems.{name}.weights=tuned: {split!r} is a split that is reported; tune on another one "
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
    name: str,
    parts: Sequence[Evaluation],
    ranking: Ranking,
    context: EvaluationContext,
    facts: Mapping[str, Any] | None = None,
) -> Evaluation:
    of = [part.system for part in parts]
    seconds = sum(part.facts.get("seconds", 0.0) for part in parts)
    return context.judge(name, ranking, {"of": of, "seconds": round(seconds, 3), **(facts or {})})
