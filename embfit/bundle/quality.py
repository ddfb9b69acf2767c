"""Measures the quality of a version through the index that will serve it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embfit.bundle.manifest import Manifest
from embfit.bundle.searching import Searcher
from embfit.evaluator.metrics import answerable, mean
from embfit.evaluator.systems import EvaluationContext
from embfit.index import ExactIndex
from embfit.records import Collection, Embeddings, Evaluation
from embfit.store import digest

ASKED = 200  # the most queries for measuring recall, answers and latency
TIMED = 50  # of these, searched one by one for the latency
FIRST = 10  # top documents of each query that are compared
WORDS = 8  # words of a document that are used as a query if there is none


@dataclass(frozen=True)
class Measured:
    """The measured quality of a version.

    Args:
        evaluations: the evaluations on the reported split and on production; empty without judgements.
        judgements: identifies the queries and judgements of the first; empty without judgements.
        recall: the share of the exact search's top ten documents that the index finds; None if not measured.
        answers: query → ids of its top ten documents, for some queries.
        latency_ms: milliseconds of one query's encoding and search, `p50` and `p95`.
    """

    evaluations: Sequence[Evaluation]
    judgements: str
    recall: float | None
    answers: Mapping[str, Sequence[str]]
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the content of `quality.json`: values by query, means of subsets of the queries, and answers."""
        if not self.evaluations:
            return {"per_query": {}, "slices": {}, "answers": self.answers}
        first, *others = self.evaluations
        slices = {
            name: {metric: mean(values[query] for query in queries) for metric, values in first.per_query.items()}
            for name, queries in first.subsets.items()
            if queries
        }
        slices |= {other.split: dict(other.metrics) for other in others}
        return {"per_query": first.per_query, "slices": slices, "answers": self.answers}


def measure(searcher: Searcher, embeddings: Embeddings | None, contexts: Sequence[EvaluationContext]) -> Measured:
    """Measure a version.

    Args:
        searcher: searches the version's own files.
        embeddings: the documents' vectors for an exact search; None leaves the recall out.
        contexts: the reported splits; those without judgements are skipped.
    """
    judged = [one for one in contexts if answerable(one.collection.qrels.get(one.split, {}))]
    evaluations = [_evaluate(searcher, one) for one in judged]
    texts = sample_queries(contexts[0].collection, contexts[0].split)
    vectors = searcher.encoder.embed(texts, "query")
    k = min(FIRST, len(searcher.index))
    _, found = searcher.search(texts, k, vectors=vectors)
    recall = None
    if embeddings is not None:
        _, exact = ExactIndex(embeddings.vectors).search(vectors, k)
        recall = float(np.mean([len({*ours} & {*theirs}) / k for ours, theirs in zip(found, exact, strict=True)]))
    ids = searcher.documents.document_ids
    answers = {text: [ids[row] for row in rows if row >= 0] for text, rows in zip(texts, found.tolist(), strict=True)}
    return Measured(evaluations, _judgements(judged), recall, answers, _latency(searcher, texts[:TIMED]))


def measured_before(
    searcher: Searcher, contexts: Sequence[EvaluationContext], manifest: Manifest, answers: Mapping[str, Sequence[str]]
) -> Measured:
    """Return the measurements of a published version: evaluations are repeated, the others are read from it.

    Args:
        searcher: searches the version's own files.
        contexts: the reported splits; those without judgements are skipped.
        manifest: the version's manifest.
        answers: the answers that were published with it.
    """
    judged = [one for one in contexts if answerable(one.collection.qrels.get(one.split, {}))]
    evaluations = [_evaluate(searcher, one) for one in judged]
    return Measured(evaluations, _judgements(judged), manifest.index.recall, answers, manifest.latency_ms)


def sample_queries(collection: Collection, split: str) -> list[str]:
    """Return some distinct queries: of a split, else of the collection, else the first words of documents."""
    of_split = [collection.query_rows[query] for query in collection.qrels.get(split, {})]
    rows = (of_split or list(range(len(collection.queries))))[:ASKED]
    texts = list(collection.query_texts(rows))
    if not texts:
        chosen = range(0, len(collection.corpus), max(1, len(collection.corpus) // ASKED))
        texts = [" ".join(text.split()[:WORDS]) for text in collection.document_texts(list(chosen)[:ASKED])]
    return list(dict.fromkeys(texts))


def _evaluate(searcher: Searcher, context: EvaluationContext) -> Evaluation:
    texts = list(context.collection.query_texts(context.rows))
    found = searcher.search(texts, context.search.search_depth, label="searching")
    return context.judge("bundle", context.search.ranking(context.rows, found))


def _judgements(judged: Sequence[EvaluationContext]) -> str:
    if not judged:
        return ""
    collection, split = judged[0].collection, judged[0].split
    rows = judged[0].rows
    asked = dict(zip((collection.query_ids[row] for row in rows), collection.query_texts(rows), strict=True))
    return digest({"judgements": collection.qrels_digest(split), "queries": asked})


def _latency(searcher: Searcher, texts: Sequence[str]) -> dict[str, float]:
    milliseconds = []
    for text in texts:
        started = time.perf_counter()
        searcher.search([text], FIRST)
        milliseconds.append(1000 * (time.perf_counter() - started))
    warm = milliseconds[1:] or milliseconds
    return {f"p{rank}": round(float(np.percentile(warm, rank)), 3) for rank in (50, 95)} if warm else {}
