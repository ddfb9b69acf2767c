"""Bi-encoders, as systems: the configured model, and any other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.cost import measure_cost
from embfit.evaluator.explaining import Explanation
from embfit.evaluator.funnel import measure_funnel
from embfit.evaluator.judging import FunnelSettings
from embfit.evaluator.metrics import mean, per_query
from embfit.evaluator.systems.context import EvaluationContext
from embfit.index.exact import ExactIndex
from embfit.index.protocol import Hits
from embfit.model.auto_encoder import encoder_at
from embfit.model.embed import embed
from embfit.model.encoder import Encoder
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.fingerprint import frozen
from embfit.model.late_interaction import LateInteractionEncoder
from embfit.model.pooling import Pooling
from embfit.records import Embeddings, Evaluation
from embfit.type_hints import Location
from embfit.vectors import Vectors

READING = ("pooling", "query_prompt", "document_prompt", "max_length")
"""The settings of how a model reads texts that a system may override."""


@dataclass(frozen=True)
class ConfiguredSystem:
    """The model that the `model` group chooses, with exact search."""

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Embed, search exactly and measure."""
        return evaluate_encoder(name, context.encoder, context)


@dataclass(frozen=True)
class DenseSystem:
    """Another model than the configured one, with exact search. A setting of None is read from the model's folder.

    The folder also says whether the model has one vector a text or several; `pooling` to `max_length` are for one.

    Args:
        path: a folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub.
        pooling: how token embeddings become one vector.
        query_prompt: put in front of each query.
        document_prompt: put in front of each document.
        max_length: the most tokens of a text that are read.
    """

    path: Annotated[str | None, Location()] = None
    revision: str | None = None
    pooling: Pooling | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Load, embed, search exactly and measure; `evaluator.dims` beyond the model's own are left out.

        Raises:
            ConfigError: as `choice`.
        """
        return evaluate_other(
            name, self.choice(name, context.model).load(*context.devices, store=context.store), context
        )

    def choice(self, name: str, configured: EncoderChoice) -> EncoderChoice:
        """Return the choice of the model, with the attention and precision of the configured one.

        Raises:
            ConfigError: no model is named, or a setting for bi-encoders is set for a late-interaction model.
        """
        if self.path is None:
            short = "tuned=FOLDER" if name == "tuned" else f"evaluator.systems.{name}.path=FOLDER_OR_NAME"
            raise ConfigError(f"evaluator.systems.{name}.path is not set; name the model: {short}")
        found = encoder_at(self.path, configured, self.revision)
        overrides = {name: value for name in READING if (value := getattr(self, name)) is not None}
        if unknown := [key for key in overrides if not hasattr(found, key)]:
            raise ConfigError(
                f"evaluator.systems.{name}.{unknown[0]}: {self.path} is a late-interaction model, which has no such "
                "setting; set it to null"
            )
        return replace(found, **overrides)


def evaluate_encoder(
    name: str, encoder: Encoder, context: EvaluationContext, dims: Sequence[int] | None = None
) -> Evaluation:
    """Embed corpus and queries, search exactly and measure, with whole vectors and with cut ones.

    Embeddings and rankings are kept in the store under the encoder's fingerprints and the texts.

    Args:
        name: the encoder's name in reports.
        encoder: embeds the texts.
        context: has the queries and documents, and the settings for judging.
        dims: dimensions that vectors are also cut to; None takes those of the context's settings.

    Raises:
        ConfigError: one of `dims` exceeds the encoder's width, or a funnel is set and the model has several vectors a
            text.
        UserError: the split cannot be judged, or a vector is not finite.
    """
    dims = (context.judging.dims or ()) if dims is None else dims
    if wide := [dim for dim in dims if dim > encoder.width]:
        raise ConfigError(f"evaluator.dims: {wide[0]} exceeds the model's {encoder.width} dimensions; leave it out")
    with frozen(encoder):
        made_by = {"queries": encoder.fingerprint("query"), "documents": encoder.fingerprint("document")}
        embedded = cache(partial(_embedded, encoder, context))  # once, even if the store is disabled

        def measure(name: str, dim: int) -> Evaluation:
            def find() -> Hits:
                queries, documents = embedded()
                index = ExactIndex(documents.vectors.cut(dim), documents.fingerprint)
                return context.search.nearest(queries.vectors.cut(dim), index)

            return context.judge_hits(
                name, {"search": "exact inner product", "encoder": made_by, "dimensions": dim}, find
            )

        whole = measure(name, encoder.width)
        cut = {dim: measure(f"{name}@{dim}", dim) for dim in sorted(dims)}
        reported, *_ = context.judging.splits
        wanted = context.judging.funnel if context.split == reported else None
        funnel = _funnel(encoder, context, wanted, dims) if wanted else {}
        explain = None
        if isinstance(encoder, LateInteractionEncoder):  # now, since training may change the weights afterwards
            queries, documents = (made.vectors for made in embedded())
            explain = Explanation.of(encoder, context.collection, context.rows, queries, documents.take)
        facts = (
            {**whole.facts, "index": _cost(encoder, embedded()[1].vectors, context)} if context.costs else whole.facts
        )
        return replace(whole, facts=facts, dims=cut, funnel=funnel, explain=explain)


def evaluate_other(name: str, encoder: Encoder, context: EvaluationContext) -> Evaluation:
    """Measure another model than the configured one; `evaluator.dims` beyond its own are left out."""
    dims = [dim for dim in context.judging.dims or () if dim <= encoder.width]
    return evaluate_encoder(name, encoder, context, dims)


def _embedded(encoder: Encoder, context: EvaluationContext) -> tuple[Embeddings, Embeddings]:
    """Return the queries' and the documents' vectors, from the store if they are there."""
    queries = embed(encoder, context.collection, "query", context.store, context.rows)
    return queries, embed(encoder, context.collection, "document", context.store)


def _cost(encoder: Encoder, documents: Vectors[np.ndarray], context: EvaluationContext) -> dict[str, float | None]:
    """Return the cost of an exact search of the documents' vectors."""
    index = ExactIndex(documents)
    width = documents.rows.dtype.itemsize * documents.width

    def search(query: Vectors[np.ndarray], row: int) -> Hits:
        return context.search.nearest(query, index)

    return measure_cost(encoder, context.collection, context.rows, documents.rows.nbytes, width, search)


def _funnel(
    encoder: Encoder, context: EvaluationContext, settings: FunnelSettings, dims: Sequence[int]
) -> dict[str, Any]:
    """Return the cost of smaller vectors and shortlists, and their quality in the first metric."""
    metric, qrels = context.judging.metrics[0], context.collection.qrels[context.split]
    queries, documents = _embedded(encoder, context)
    if not (queries.vectors.single and documents.vectors.single):
        raise ConfigError("evaluator.funnel needs one vector a text, and the model has several; set it to null")

    def value(hits: Hits) -> float:
        ranking = context.search.ranking(context.rows, hits)
        return mean(per_query(ranking, qrels, [metric])[metric].values())

    depth = context.search.search_depth
    return asdict(measure_funnel(queries.vectors, documents.vectors, dims, settings, depth, metric, value))
