"""A server of embeddings as a system: does it serve the model that was evaluated?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError, UserError
from embfit.evaluator.served import Drift, Server, measure_drift
from embfit.evaluator.served_vectors import served_vectors
from embfit.evaluator.systems.context import EvaluationContext
from embfit.index.exact import ExactIndex
from embfit.records import Evaluation
from embfit.vectors import Vectors


@dataclass(frozen=True)
class EndpointSystem:
    """A server of embeddings (`/v1/embeddings`, as in OpenAI, vLLM, TEI and others), with exact search.

    Before the corpus is sent, the served vectors of a sample of texts are compared with the configured model's own. A
    difference above the tolerance is an error, since the server then has another model than the one evaluated. If that
    model normalises its vectors, served vectors are normalised too and lengths are not compared; otherwise a difference
    in length counts as drift.

    Args:
        url: the server's address up to the version, such as `http://localhost:8080/v1`.
        model: the model's name on the server.
        key_variable: the environment variable that holds the server's key, if it requires one.
        query_prompt: put in front of each query, if the server does not do so itself.
        document_prompt: put in front of each document.
        batch: texts in one request.
        timeout: seconds to wait for an answer.
        in_flight: requests sent concurrently.
        sample: how many queries, and how many documents, are compared with the configured model.
        tolerance: the largest accepted drift (1 - cosine); None compares nothing, for a server of another model.
        normalize: whether served vectors are normalised before they are searched. None follows the configured model if
            there is a tolerance; without one the server has another model, and its vectors are taken as they are.
    """

    url: str | None = None
    model: str = "embfit"
    key_variable: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    batch: Annotated[int, Field(ge=1)] = 32
    timeout: Annotated[float, Field(gt=0)] = 60.0
    in_flight: Annotated[int, Field(ge=1)] = 4
    sample: Annotated[int, Field(ge=1)] = 64
    tolerance: Annotated[float, Field(gt=0)] | None = 0.001
    normalize: bool | None = None

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Embed at the server, search and measure; vectors are kept in the store.

        Raises:
            ConfigError: no server is named.
            UserError: the server does not answer, its vectors are not those of the configured model, or that model has
                several vectors a text.
        """
        if self.url is None:
            raise ConfigError(
                f"evaluator.systems.{name}.url is not set; give the server's address up to the version: "
                f"evaluator.systems.{name}.url=http://localhost:8080/v1"
            )
        server = Server(self.url, self.model, self.key_variable, self.batch, self.timeout, self.in_flight)
        facts: dict[str, Any] = (
            {} if self.tolerance is None else {"drift": asdict(self._drift(server, context, self.tolerance))}
        )
        started = time.monotonic()
        collection, store = context.collection, context.store
        everything = range(len(collection.corpus))
        query_vectors, queries_sent = served_vectors(
            server, collection, "query", context.rows, self.query_prompt, store
        )
        document_vectors, documents_sent = served_vectors(
            server, collection, "document", everything, self.document_prompt, store
        )
        queries, documents = Vectors(query_vectors), Vectors(document_vectors)
        if self._normalizes(context):
            queries, documents = queries.normalised(), documents.normalised()
        ranking = context.search.ranking(context.rows, context.search.nearest(queries, ExactIndex(documents)))
        facts |= {"seconds": round(time.monotonic() - started, 3), "reused": queries_sent + documents_sent == 0}
        return context.judge(name, ranking, facts)

    def _normalizes(self, context: EvaluationContext) -> bool:
        if self.normalize is not None:
            return self.normalize
        return self.tolerance is not None and context.encoder.normalizes

    def _drift(self, server: Server, context: EvaluationContext, tolerance: float) -> Drift:
        random = np.random.default_rng(context.judging.seed)
        queries = _some(random, context.rows, self.sample)
        documents = _some(random, range(len(context.collection.corpus)), self.sample)
        query_texts = (self.query_prompt + text for text in context.collection.query_texts(queries))
        document_texts = (self.document_prompt + text for text in context.collection.document_texts(documents))
        served = [
            server.encode(query_texts, len(queries), "some queries at the server"),
            server.encode(document_texts, len(documents), "some documents at the server"),
        ]
        own = [
            context.encoder.encode(context.collection.query_texts(queries), "query"),
            context.encoder.encode(context.collection.document_texts(documents), "document"),
        ]
        try:
            found = measure_drift(np.concatenate(served), np.concatenate(own), lengths=not self._normalizes(context))
        except ValueError as error:
            raise UserError(f"{self.url} does not serve {context.model.path}: {error}") from error
        if found.most > tolerance:
            measure = (
                "1 - cosine"
                if self._normalizes(context)
                else "half the squared distance, relative to the squared length"
            )
            raise UserError(
                f"{self.url} does not serve model.path={context.model.path}: of {found.texts} texts vectors differ by "
                f"up to {found.most:.2g} ({measure}; mean {found.mean:.2g}), and tolerance is {tolerance:g}\n"
                "Weights, prompts, length or precision differ; set its prompts, or tolerance=null to measure it anyway."
            )
        return found


def _some(random: np.random.Generator, rows: Sequence[int], count: int) -> list[int]:
    chosen: list[int] = random.choice(np.asarray(rows), min(count, len(rows)), replace=False).tolist()
    return sorted(chosen)
