"""Another system's best documents, read together with the query by a cross-encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.reranking import rerank
from embfit.evaluator.systems.context import EvaluationContext
from embfit.hints import Location
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.scoring import score_pairs
from embfit.records import Evaluation


@dataclass(frozen=True)
class RerankedSystem:
    """A system whose first documents a cross-encoder reranks; the others follow in their order.

    Args:
        of: the system's name.
        path: the cross-encoder: a folder, or a name on the Hub. Code that comes with it is run where
            `model.trust_remote_code` allows it.
        revision: branch, tag or commit on the Hub.
        top: documents of each query that it reads.
        max_length: tokens read of query and document together; None is the cross-encoder's own limit.
    """

    of: str = "hybrid"
    path: Annotated[str | None, Location()] = None
    revision: str | None = None
    top: Annotated[int, Field(ge=1)] = 100
    max_length: Annotated[int, Field(ge=4)] | None = None

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Score the pairs, rank and measure; scores are kept in the store.

        Raises:
            ConfigError: no cross-encoder is named.
        """
        if self.path is None:
            raise ConfigError(
                f"evaluator.systems.{name}.path is not set; name a cross-encoder: "
                f"evaluator.systems.{name}.path=FOLDER_OR_NAME"
            )
        first = context.evaluation(self.of)
        started = time.monotonic()
        model = context.model
        ranker = CrossEncoder.load(
            self.path, self.max_length, model.precision, context.devices[0], self.revision, model.trust_remote_code
        )
        score = partial(score_pairs, ranker, context.collection, store=context.store, label="reranking")
        ranking = rerank(first.ranking, context.collection, self.top, score)
        facts = {
            "of": self.of,
            "pairs": sum(min(len(found), self.top) for found in first.ranking.documents.values()),
            "rerank_seconds": round(time.monotonic() - started, 3),
            "seconds": round(first.facts.get("seconds", 0.0) + time.monotonic() - started, 3),
        }
        return context.judge(name, ranking, facts)
