"""Another system's first documents, reranked by a cross-encoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.judging import judge
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.evaluator.reranking import pairs_of, rerank
from embfit.evaluator.systems.context import EvaluationContext
from embfit.evaluator.validation import dev_quality
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.precision import by_pytorch
from embfit.model.scoring import score_pairs
from embfit.records import DevQuality, Evaluation
from embfit.type_hints import Location


@dataclass(frozen=True)
class RerankedSystem:
    """Another system's first documents, reranked by a cross-encoder.

    Args:
        of: the name of the other system.
        path: the cross-encoder: a folder, or a name on the Hub. Code that comes with it runs only if
            `model.trust_remote_code` allows it.
        revision: branch, tag or commit on the Hub.
        top: how many documents of each query are reranked; the later ones follow in their order.
        max_length: the most tokens that are read of query and document together; None is the cross-encoder's own limit.
    """

    of: str = "hybrid"
    path: Annotated[str | None, Location()] = None
    revision: str | None = None
    top: Annotated[int, Field(ge=1)] = 100
    max_length: Annotated[int, Field(ge=8)] | None = None

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
            self.path,
            self.max_length,
            by_pytorch(model.precision),
            context.devices[0],
            self.revision,
            model.trust_remote_code,
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


def reranking_on_dev(context: EvaluationContext, candidates: str, top: int) -> Callable[[CrossEncoder], DevQuality]:
    """Return a function that measures a cross-encoder on the context's split, whose weights may change between calls.

    Args:
        context: the context of the dev split.
        candidates: the system whose documents are reranked.
        top: how many documents of each query are reranked.
    """
    collection, ranking = context.collection, context.evaluation(candidates).ranking
    rows = pairs_of(ranking, collection, top)
    queries, query_places = np.unique(rows[:, 0], return_inverse=True)
    documents, document_places = np.unique(rows[:, 1], return_inverse=True)
    places = np.stack([query_places.reshape(-1), document_places.reshape(-1)], axis=1)
    metrics = [*dict.fromkeys([*context.judging.metrics, VALIDATION_METRIC])]

    def validate(ranker: CrossEncoder) -> DevQuality:
        query_tokens = ranker.tokenize(collection.query_texts(queries.tolist()))
        document_tokens = ranker.tokenize(collection.document_texts(documents.tolist()))

        def score(_: np.ndarray) -> np.ndarray:
            return ranker.score_tokens(ranker.pairs(query_tokens, document_tokens, places))

        found = rerank(ranking, collection, top, score)
        return dev_quality(judge("validation", collection, context.split, found, metrics), collection)

    return validate
