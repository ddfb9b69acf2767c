"""Late interaction as a system: over the whole corpus, or reranking the first documents of another system."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.cost import measure_cost
from embfit.evaluator.explaining import Explanation
from embfit.evaluator.reranking import rerank
from embfit.evaluator.systems.context import EvaluationContext
from embfit.evaluator.systems.dense import evaluate_other
from embfit.index.inner_products import pair_scores
from embfit.index.protocol import Hits
from embfit.index.token_vectors import TokenCandidates, TokenFormat, TokenIndexing, stored_token_index
from embfit.model import LateInteraction, LateInteractionEncoder, embed, encoder_at, frozen
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.model.latest_run import newest_encoder
from embfit.model.vector_scores import score_by_vectors
from embfit.records import Evaluation
from embfit.type_hints import Location
from embfit.vectors import Vectors


@dataclass(frozen=True)
class LateModel:
    """Which late-interaction model a system searches with.

    Args:
        path: a folder, or a name on the Hub. None takes the configured model if it is one, else the newest model of a
            finished fine-tuning on the same documents.
        revision: branch, tag or commit on the Hub.
        runs: the folder of those fine-tunings.
    """

    path: Annotated[str | None, Location()] = None
    revision: str | None = None
    runs: str = "outputs"

    def load(self, name: str, context: EvaluationContext) -> LateInteractionEncoder:
        """Load the model.

        Raises:
            ConfigError: there is none, or the named model has one vector a text.
        """
        if self.path is None and isinstance(context.model, LateInteraction):
            encoder = context.encoder
        else:
            encoder = encoder_at(self._found(name, context), context.model, self.revision).load(
                *context.devices, store=context.store
            )
        if not isinstance(encoder, LateInteractionEncoder):
            raise ConfigError(
                f"evaluator.systems.{name}.path={self.path} is a model of one vector a text; name a late-interaction "
                "model, or measure it as tuned=FOLDER"
            )
        return encoder

    def _found(self, name: str, context: EvaluationContext) -> str:
        found = self.path or newest_encoder(Path(self.runs), context.collection, holds_late_interaction)
        if found is None:
            raise ConfigError(
                f"evaluator.systems.{name}.path is not set, and no late-interaction model under {self.runs} was "
                f"fine-tuned on these documents; name one: evaluator.systems.{name}.path=FOLDER_OR_NAME"
            )
        return str(found)


@dataclass(frozen=True)
class LateSystem(LateModel):
    """A late-interaction model over the whole corpus; `LateModel` documents the model.

    Args:
        search: `exact` compares whole vectors of every document; `tokens` searches an index of compressed ones.
        format: the form in which that index stores a vector.
        candidates: which documents the index scores: all, or those that centroids propose.
        shortlist: the least number of proposed documents that are scored in full.
        probes: how many of the nearest centroids propose documents, for each query vector.
        pool_factor: how many vectors of a document are merged into one, on average.
    """

    search: Literal["exact", "tokens"] = "exact"
    format: Literal["auto"] | TokenFormat = "auto"
    candidates: Literal["auto"] | TokenCandidates = "auto"
    shortlist: Annotated[int, Field(ge=1)] = 256
    probes: Annotated[int, Field(ge=1)] = 64
    pool_factor: Annotated[int, Field(ge=1)] = 1

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Embed, search and measure; embeddings, index and rankings are kept in the store.

        Raises:
            ConfigError: there is no late-interaction model.
            UserError: the split cannot be judged, or a vector is not finite.
        """
        encoder = self.load(name, context)
        if self.search == "exact":
            return evaluate_other(name, encoder, context)
        with frozen(encoder):
            queries = embed(encoder, context.collection, "query", context.store, context.rows)
            documents = embed(encoder, context.collection, "document", context.store)
            index = stored_token_index(documents, self._settings(context.judging.seed), context.store)
            key = {"search": "tokens", "index": index.fingerprint, "queries": queries.fingerprint}
            find = partial(context.search.nearest, queries.vectors, index)
            found = context.judge_hits(name, key, find)
        facts = {**found.facts, "format": index.codec.form}
        if context.costs:

            def search(query: Vectors[np.ndarray], row: int) -> Hits:
                return index.search(query, context.search.search_depth)

            cost = measure_cost(encoder, context.collection, context.rows, index.bytes, index.bytes_per_vector, search)
            facts["index"] = cost
        if self.pool_factor > 1:  # a stored vector stands for several tokens, so no word can be named
            return replace(found, facts=facts)
        explain = Explanation.of(encoder, context.collection, context.rows, queries.vectors, index.vectors)
        return replace(found, facts=facts, explain=explain)

    def _settings(self, seed: int) -> TokenIndexing:
        return TokenIndexing(
            format=self.format,
            candidates=self.candidates,
            shortlist=self.shortlist,
            probes=self.probes,
            pool_factor=self.pool_factor,
            seed=seed,
        )


@dataclass(frozen=True)
class LateRerankedSystem(LateModel):
    """Another system's first documents, reranked by late interaction; `LateModel` documents the model.

    Args:
        of: the name of the other system.
        top: how many documents of each query are reranked; the later ones follow in their order.
    """

    of: str = "hybrid"
    top: Annotated[int, Field(ge=1)] = 100

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Score the pairs by whole vectors, rank and measure.

        Raises:
            ConfigError: there is no late-interaction model.
        """
        encoder = self.load(name, context)
        first = context.evaluation(self.of)
        collection, store = context.collection, context.store
        started = time.monotonic()
        with frozen(encoder):
            score = partial(score_by_vectors, encoder, collection, store=store, label="reranking")
            ranking = rerank(first.ranking, collection, self.top, score)
            documents = embed(encoder, collection, "document", store).vectors
            queries = embed(encoder, collection, "query", store, context.rows).vectors
        facts = {
            "of": self.of,
            "pairs": sum(min(len(found), self.top) for found in first.ranking.documents.values()),
            "rerank_seconds": round(time.monotonic() - started, 3),
            "seconds": round(first.facts.get("seconds", 0.0) + time.monotonic() - started, 3),
        }
        if context.costs:

            def score_shortlist(query: Vectors[np.ndarray], row: int) -> np.ndarray:
                listed = first.ranking.documents.get(collection.query_ids[row], ())[: self.top]
                shortlist = np.array([[collection.document_rows[document] for document, _ in listed]], np.int64)
                return pair_scores(query, documents, shortlist)

            size = documents.rows.nbytes
            width = documents.rows.dtype.itemsize * documents.width
            facts["index"] = measure_cost(encoder, collection, context.rows, size, width, score_shortlist)
        explain = Explanation.of(encoder, collection, context.rows, queries, documents.take)
        return replace(context.judge(name, ranking, facts), explain=explain)
