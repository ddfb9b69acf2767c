"""Metrics on the dev split, measured during training as the weights change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from embfit.evaluator.judging import Judging, judge, query_rows
from embfit.evaluator.metrics import VALIDATION_METRIC, mean
from embfit.evaluator.search import CorpusSearch
from embfit.evaluator.subcorpus import subcorpus
from embfit.evaluator.subsets import seen_by_training
from embfit.index.exact import ExactIndex
from embfit.model.embed import embed
from embfit.model.encoder import Encoder
from embfit.records import Collection, DevQuality, Evaluation
from embfit.store import Store
from embfit.vectors import Vectors


def validate(judging: Judging, encoder: Encoder, collection: Collection) -> DevQuality:
    """Return the quality on the dev split, embedding its texts again, since the weights change between calls.

    The metrics are the configured ones; `ndcg@10`, which training monitors; `ndcg@10/DIM` for each of `judging.dims`,
    from the same vectors cut; and `ndcg@10/seen` and `ndcg@10/unseen` if training sees the relevant documents of some
    of the split's queries and not of others. The search covers the judged documents and a sample of the others, up to
    `dev_documents` in total, the same in each call. This is quick but easier than searching the whole corpus, so
    compare these values only with each other.

    Raises:
        UserError: there is no such split, none of its queries has a relevant document, or a vector is not finite.
    """
    measure = measured_on_dev(judging, encoder, collection)
    whole = measure(encoder.width, [*dict.fromkeys([*judging.metrics, VALIDATION_METRIC])])
    quality = dev_quality(whole, collection)
    found = dict(quality.metrics)
    for dim in sorted(judging.dims or ()):
        if dim < encoder.width:
            found[f"{VALIDATION_METRIC}/{dim}"] = measure(dim, [VALIDATION_METRIC]).metrics[VALIDATION_METRIC]
    return replace(quality, metrics=found)


def measured_on_dev(
    judging: Judging, encoder: Encoder, collection: Collection
) -> Callable[[int, Sequence[str]], Evaluation]:
    """Embed the dev split, and return a function that measures metrics with the vectors cut to some dimensions.

    It searches the same documents as `validate`, and raises the same errors.
    """
    split, search = judging.dev_split, CorpusSearch(collection, judging.depth)
    rows = query_rows(collection, split)
    chosen = subcorpus(collection, split, judging.dev_documents)
    queries = encoder.embed(collection.query_texts(rows), "query")
    documents = encoder.embed(collection.document_texts(chosen.tolist()), "document")

    def measure(dim: int, metrics: Sequence[str]) -> Evaluation:
        hits = search.nearest(queries.cut(dim), ExactIndex(documents.cut(dim)), chosen)
        return judge("validation", collection, split, search.ranking(rows, hits), metrics)

    return measure


def dev_with_queries_changed(
    judging: Judging, encoder: Encoder, collection: Collection, store: Store
) -> Callable[[Callable[[np.ndarray], np.ndarray]], DevQuality]:
    """Embed the dev split once, and return a function that measures it with changed query vectors.

    It searches the same documents as `validate`, and raises the same errors.
    """
    split, search = judging.dev_split, CorpusSearch(collection, judging.depth)
    rows = query_rows(collection, split)
    chosen = subcorpus(collection, split, judging.dev_documents)
    queries = np.array(embed(encoder, collection, "query", store).vectors.take(rows).flat())  # [Q, D]
    index = ExactIndex(embed(encoder, collection, "document", store).vectors.take(chosen))

    def measure(change: Callable[[np.ndarray], np.ndarray]) -> DevQuality:
        ranking = search.ranking(rows, search.nearest(Vectors(change(queries)), index, chosen))
        return dev_quality(judge("validation", collection, split, ranking, [VALIDATION_METRIC]), collection)

    return measure


def dev_quality(evaluation: Evaluation, collection: Collection) -> DevQuality:
    """Return the means over all, seen and unseen queries of the dev split, and each query's `ndcg@10`."""
    by_query = evaluation.per_query[VALIDATION_METRIC]
    metrics = dict(evaluation.metrics)
    seen = seen_by_training(collection, evaluation.split)
    parts = {"seen": seen, "unseen": by_query.keys() - seen}
    if all(parts.values()):
        for part, queries in parts.items():
            metrics[f"{VALIDATION_METRIC}/{part}"] = mean(by_query[query] for query in sorted(queries))
    return DevQuality(metrics, list(by_query.values()))
