"""Another system's best documents, read together with the query by a cross-encoder."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.metrics import rank
from embfit.evaluator.systems.bench import Bench
from embfit.model.cross_encoder import CrossEncoder
from embfit.records import Evaluation, Ranking


@dataclass(frozen=True)
class Reranked:
    """A system whose first documents a cross-encoder ranks anew; the others follow in their order.

    Args:
        of: the system's name.
        path: the cross-encoder: a folder, or a name on the Hub.
        top: documents of each query that it reads.
        max_length: tokens read of query and document together; None is the cross-encoder's own limit.
    """

    of: str = "hybrid"
    path: str | None = None
    top: Annotated[int, Field(ge=1)] = 100
    max_length: Annotated[int, Field(ge=4)] | None = None

    def evaluate(self, name: str, bench: Bench) -> Evaluation:
        """Score the pairs, rank and measure; scores are kept in the store.

        Raises:
            ConfigError: no cross-encoder is named.
        """
        if self.path is None:
            raise ConfigError(
                f"evaluator.systems.{name}.path is not set; name a cross-encoder: "
                f"evaluator.systems.{name}.path=FOLDER_OR_NAME"
            )
        first = bench.evaluation(self.of)
        started = time.monotonic()
        shortlists = {query: found[: self.top] for query, found in first.ranking.documents.items()}
        pairs = [(query, document) for query, found in shortlists.items() for document, _ in found]
        scores = dict(zip(pairs, self._scores(bench, self.path, pairs).tolist(), strict=True))
        scored = {}
        for query, found in first.ranking.documents.items():
            read = [(document, scores[query, document]) for document, _ in found[: self.top]]
            least = min((score for _, score in read), default=0.0)
            rest = [(document, least - place) for place, (document, _) in enumerate(found[self.top :], 1)]
            scored[query] = [*read, *rest]
        facts = {
            "of": self.of,
            "pairs": len(pairs),
            "rerank_seconds": round(time.monotonic() - started, 3),
            "seconds": round(first.facts.get("seconds", 0.0) + time.monotonic() - started, 3),
        }
        ranking: Ranking = rank(scored)
        return bench.judge(name, ranking, facts)

    def _scores(self, bench: Bench, path: str, pairs: list[tuple[str, str]]) -> np.ndarray:
        """Return the cross-encoder's scores of (query id, document id) pairs."""
        collection = bench.collection
        ranker = CrossEncoder.load(path, self.max_length, bench.model.precision)
        key = {
            "ranker": ranker.fingerprint,
            "corpus": collection.corpus_digest,
            "queries": collection.queries_digest,
            "pairs": hashlib.sha256(json.dumps(pairs).encode()).hexdigest(),
        }

        def build(folder: Path) -> None:
            queries = dict.fromkeys(query for query, _ in pairs)
            documents = dict.fromkeys(document for _, document in pairs)
            query_texts = collection.query_texts([collection.query_rows[query] for query in queries])
            document_texts = collection.document_texts([collection.document_rows[one] for one in documents])
            asked = dict(zip(queries, query_texts, strict=True))
            read = dict(zip(documents, document_texts, strict=True))
            texts = [(asked[query], read[document]) for query, document in pairs]
            np.save(folder / "scores.npy", ranker.score(texts, "reranking"))

        scores: np.ndarray = np.load(bench.store.entry("reranking", key, build) / "scores.npy")
        return scores
