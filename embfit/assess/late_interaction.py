"""Whether late interaction is worth its storage: what speaks for it, what it would take, and what one model gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embfit.assess.hard_queries import cut_off_queries, document_frequency, rare_term_queries
from embfit.evaluator.comparison import ALL
from embfit.evaluator.metrics import answerable
from embfit.evaluator.subcorpus import subcorpus
from embfit.evaluator.systems import EvaluationContext
from embfit.index import ExactIndex
from embfit.index.compressed import bytes_per_document
from embfit.index.token_vectors import TokenIndexing
from embfit.index.token_vectors.codec import bytes_per_vector
from embfit.index.token_vectors.postings import ENTRY
from embfit.model import Encoder, LateInteractionEncoder, embed, tokenized
from embfit.model.late_interaction import known_ids, with_roles
from embfit.model.late_interaction_choice import DIM, DOCUMENT_LENGTH
from embfit.model.late_interaction_folder import PUNCTUATION
from embfit.records import Collection, Comparison, Evaluation
from embfit.report.findings import LEVEL
from embfit.report.formatting import bounds, metric_label, probability, signed
from embfit.tokens import tokenize

SAMPLE = 1000  # documents whose tokens are counted
MANY = 0.25  # share of queries that one vector may serve badly, from which on late interaction is worth a try


def weigh_late_interaction(
    context: EvaluationContext,
    late: LateInteractionEncoder | None,
    documents: int,
    hoped: float,
    compare_all: Callable[[Sequence[Evaluation]], Sequence[Comparison]],
) -> dict[str, Any]:
    """Count what speaks for late interaction, estimate its index, and measure a model on a sample if there is one.

    Args:
        context: the evaluation's context, with the collection and the configured model of one vector a text.
        late: a late-interaction model; None if there is none at hand.
        documents: the documents that it is measured on at most, unless more are judged.
        hoped: the gain hoped for, in the first metric.
        compare_all: compares evaluations with the first of them.

    Returns:
        `rare_share` and `cut_off_share`: the shares of queries with a word that one to three documents contain, and
        about a document that the configured model cuts off.
        `vectors_per_document`, `format`, `bytes_per_token`, `bytes_per_document`, `single_bytes_per_document` and
        `times`: what its index would take by default, postings at most included, and how many times the single
        vector's that is.
        `gain`: metric, documents, difference, ci95 and p of the model against the configured one; None without one.
        `verdict` (`yes`, `try`, `unclear` or `no`) and `sentence`: what follows.
    """
    collection, qrels = context.collection, context.collection.qrels[context.split]
    asked = len(answerable(qrels))
    truncated = tokenized(context.encoder, collection, "document", context.store).truncated
    found: dict[str, Any] = {
        "rare_share": len(rare_term_queries(collection, qrels, document_frequency(collection))) / asked,
        "cut_off_share": len(cut_off_queries(collection, qrels, truncated)) / asked,
        **index_size(context.encoder, late, collection, context.judging.seed),
        "gain": None if late is None else _gain(context, late, documents, compare_all),
    }
    verdict, sentence = verdict_of(found, hoped)
    return {**found, "verdict": verdict, "sentence": sentence}


def verdict_of(found: Mapping[str, Any], hoped: float) -> tuple[str, str]:
    """Say whether late interaction is worth its storage, and why.

    A model that was measured decides: `yes` if it gains what is hoped for, significantly; `no` if its interval leaves
    no room for that gain, or it is significantly worse; `unclear` between. Without a model, a quarter of the queries
    with rare words, or about documents that are cut off, is worth a `try`; fewer are not (`no`).
    """
    storage = storage_of(found)
    gain = found["gain"]
    if gain is not None:
        told = (
            f"a late-interaction model changes {metric_label(gain['metric'])} by {signed(gain['difference'], 3)} "
            f"({bounds(gain['ci95'], 3)}, p = {probability(gain['p'])}) on {gain['documents']:,} documents, "
            f"for {storage}"
        )
        if gain["p"] < LEVEL and gain["difference"] >= hoped:
            return "yes", f"Late interaction is worth its storage: {told}."
        worse = gain["p"] < LEVEL and gain["difference"] < 0
        if worse or (gain["ci95"] is not None and gain["ci95"][1] < hoped):
            return "no", f"Late interaction is not worth its storage here: {told}; {hoped:g} was hoped for."
        return "unclear", f"Whether late interaction is worth its storage is not known: {told}."
    shares = (
        f"{found['rare_share']:.0%} of the queries have a word that one to three documents have, and "
        f"{found['cut_off_share']:.0%} are about a document that one vector cuts off"
    )
    if max(found["rare_share"], found["cut_off_share"]) >= MANY:
        return (
            "try",
            f"Late interaction is worth a try (experiment=colbert), compared with hybrid: {shares}. "
            f"It takes {storage}.",
        )
    return "no", f"Late interaction is not worth its storage here: only {shares}, and it takes {storage}."


def storage_of(found: Mapping[str, Any]) -> str:
    """Say what an index of token vectors takes, beside one vector for each document."""
    times = f"{found['times']:.0f} times" if found["times"] >= 2 else f"{found['times']:.1f} times"
    return f"an index of about {found['bytes_per_document']:,.0f} bytes a document, {times} one vector's"


def index_size(
    base: Encoder, late: LateInteractionEncoder | None, collection: Collection, seed: int
) -> dict[str, float | str]:
    """Return what an index of token vectors would take, from the tokens of a sample.

    Args:
        base: the model of one vector a text.
        late: a late-interaction model; None for a new one with the base's tokenizer and the default settings.
        collection: has the documents.
        seed: draws the sample.

    Returns:
        `vectors_per_document`, `format`, `bytes_per_token`, `bytes_per_document`, `single_bytes_per_document` and
        `times`, as in `weigh_late_interaction`.
    """
    rows = np.random.default_rng(seed).permutation(len(collection.corpus))[:SAMPLE]
    texts = list(collection.document_texts(rows.tolist()))
    if late is not None:
        counts = late.vector_counts(late.tokenize(texts, "document"))
    else:  # as a new model on the same tokenizer reads them: its marker takes the place of a token
        tokens = tokenize(base.tokenizer, texts, DOCUMENT_LENGTH - 1)
        counts = with_roles(tokens, known_ids(base.tokenizer, PUNCTUATION)).scored + 1
    dim = DIM if late is None else late.width
    documents, settings = len(collection.corpus), TokenIndexing()
    vectors = round(float(counts.mean()) * documents)
    form, candidates = settings.format_for(documents, vectors, dim), settings.candidates_for(documents, vectors)
    by_centroids = candidates == "centroids"
    width = bytes_per_vector(form, dim, by_centroids)
    per_document = float(counts.mean()) * (width + (ENTRY if by_centroids else 0))
    single = bytes_per_document(base.width, "float32")
    return {
        "vectors_per_document": float(counts.mean()),
        "format": form,
        "bytes_per_token": width,
        "bytes_per_document": per_document,
        "single_bytes_per_document": single,
        "times": per_document / single,
    }


def _gain(
    context: EvaluationContext,
    late: LateInteractionEncoder,
    documents: int,
    compare_all: Callable[[Sequence[Evaluation]], Sequence[Comparison]],
) -> dict[str, Any]:
    """Compare a late-interaction model with the configured one on the judged documents and a sample of the others."""
    collection = context.collection
    rows = subcorpus(collection, context.split, documents)
    evaluations = []
    for name, encoder in {"one vector": context.encoder, "late interaction": late}.items():
        queries = embed(encoder, collection, "query", context.store, context.rows).vectors
        read = embed(encoder, collection, "document", context.store, rows.tolist())
        hits = context.search.nearest(queries, ExactIndex(read.vectors, read.fingerprint), rows)
        evaluations.append(context.judge(name, context.search.ranking(context.rows, hits)))
    metric = context.judging.metrics[0]
    one = next(one for one in compare_all(evaluations) if (one.metric, one.subset) == (metric, ALL))
    ci95 = None if one.ci95 is None else list(one.ci95)
    return {
        "model": late.source,
        "metric": metric,
        "documents": len(rows),
        "difference": one.difference,
        "ci95": ci95,
        "p": one.p,
    }
