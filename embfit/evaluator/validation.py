"""The metrics that a training measures on the dev split, each time with other weights."""

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
    """Return the quality on the dev split, embedding everything again: weights change between two calls.

    `ndcg@10`, which training watches, is among them whatever the configured metrics, and `ndcg@10/DIM` for each of
    `judging.dims`: texts are embedded once, and the vectors cut. Where the split asks for documents that training sees
    and for others, `ndcg@10/seen` and `ndcg@10/unseen` are among them. Documents are the judged ones and a sample of
    the others, the same in each call, up to `dev_documents`. That is quick, and too easy: values are higher than over
    the whole corpus, and to be compared with each other alone.

    Raises:
        UserError: there is no such split, none of its queries has a relevant document, or a score is no number.
    """
    at = measured_on_dev(judging, encoder, collection)
    whole = at(encoder.width, [*dict.fromkeys([*judging.metrics, VALIDATION_METRIC])])
    quality = dev_quality(whole, collection)
    found = dict(quality.metrics)
    for dim in sorted(judging.dims or ()):
        if dim < encoder.width:
            found[f"{VALIDATION_METRIC}/{dim}"] = at(dim, [VALIDATION_METRIC]).metrics[VALIDATION_METRIC]
    return replace(quality, metrics=found)


def measured_on_dev(
    judging: Judging, encoder: Encoder, collection: Collection
) -> Callable[[int, Sequence[str]], Evaluation]:
    """Embed the dev split; return what measures metrics with vectors of some dimensions.

    What is searched, and the errors, are those of `validate`.
    """
    split, search = judging.dev_split, CorpusSearch(collection, judging.depth)
    rows = query_rows(collection, split)
    chosen = subcorpus(collection, split, judging.dev_documents)
    queries = encoder.embed(collection.query_texts(rows), "query")
    documents = encoder.embed(collection.document_texts(chosen.tolist()), "document")

    def at(dim: int, metrics: Sequence[str]) -> Evaluation:
        hits = search.nearest(queries.cut(dim), ExactIndex(documents.cut(dim)), chosen)
        return judge("validation", collection, split, search.ranking(rows, hits), metrics)

    return at


def dev_with_queries_changed(
    judging: Judging, encoder: Encoder, collection: Collection, store: Store
) -> Callable[[Callable[[np.ndarray], np.ndarray]], DevQuality]:
    """Return what measures the dev split while queries' vectors alone change; nothing is embedded twice.

    What is searched, and the errors, are those of `validate`.
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
    """Return what training needs of an evaluation of the dev split: its means, those of its parts, and each query's."""
    by_query = evaluation.per_query[VALIDATION_METRIC]
    metrics = dict(evaluation.metrics)
    seen = seen_by_training(collection, evaluation.split)
    parts = {"seen": seen, "unseen": by_query.keys() - seen}
    if all(parts.values()):
        for part, queries in parts.items():
            metrics[f"{VALIDATION_METRIC}/{part}"] = mean(by_query[query] for query in sorted(queries))
    return DevQuality(metrics, list(by_query.values()))
