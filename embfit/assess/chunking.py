"""What is lost if documents are longer than the model reads, and whether shorter pieces find more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from embfit.assess.pieces import evaluate_best_piece, evaluate_pieces
from embfit.errors import ConfigError
from embfit.evaluator.comparison import ALL
from embfit.evaluator.subcorpus import subcorpus
from embfit.evaluator.systems import EvaluationContext
from embfit.model import embed
from embfit.records import Comparison, Evaluation

log = logging.getLogger(__name__)

CUT_OFF = "cut off"


def piece_sizes(sizes: Sequence[int] | None, limit: int) -> list[int]:
    """Return the sizes of pieces to try, largest first, without those that are longer than the model reads.

    Args:
        sizes: the tokens of a piece for each size; None tries the model's maximum length and half of it.
        limit: the tokens that the model reads.

    Raises:
        ConfigError: every size is longer than the model reads.
    """
    chosen = sorted(set(sizes or (limit, limit // 2)), reverse=True)
    if not (readable := [size for size in chosen if size <= limit]):
        raise ConfigError(
            f"task.chunk_sizes={chosen}: every size exceeds the {limit} tokens that the model reads; give smaller "
            "sizes, or raise model.max_length if the model has enough positions"
        )
    for size in chosen[: len(chosen) - len(readable)]:
        log.warning(
            "task.chunk_sizes: %d is left out, because the model reads %d tokens; raise model.max_length if the model "
            "has enough positions",
            size,
            limit,
        )
    return readable


def compare_chunks(
    context: EvaluationContext,
    sizes: Sequence[int],
    documents: int,
    compare_all: Callable[[Sequence[Evaluation]], Sequence[Comparison]],
) -> dict[str, Any]:
    """Measure the configured model on documents cut off at its length, and on documents in pieces.

    All are measured on the same part of the corpus: the judged documents and a sample of the others. That is quick but
    too easy, so the values can only be compared with each other.

    Args:
        context: the evaluation's context, with the collection and the model.
        sizes: the tokens of a piece for each size, from `piece_sizes`.
        documents: the documents to search at most, unless more are judged.
        compare_all: compares evaluations with the first of them.

    Returns:
        The `documents` searched, and `settings`, each with its name, tokens, pieces per document and metrics, and with
        the difference to cutting off, its 95 % interval, its p-value and, if there are several sizes, the p-value
        corrected for their number (`p_holm`).
    """
    encoder, collection = context.encoder, context.collection
    rows = subcorpus(collection, context.split, documents)
    whole = embed(encoder, collection, "document", context.store).vectors.take(rows)
    systems = {CUT_OFF: (encoder.max_length, evaluate_best_piece(CUT_OFF, context, rows, whole))}
    for tokens in sizes:
        name = f"pieces of {tokens}"
        systems[name] = (tokens, evaluate_pieces(name, context, rows, tokens))
    metric = context.judging.metrics[0]
    compared = compare_all([found for _, found in systems.values()])
    against = {one.b: one for one in compared if (one.metric, one.subset) == (metric, ALL)}
    settings = []
    for name, (tokens, found) in systems.items():
        entry = {"name": name, "tokens": tokens, "pieces_per_document": found.facts["pieces"] / len(rows)}
        entry["metrics"] = dict(found.metrics)
        if one := against.get(name):
            entry |= {"difference": one.difference, "ci95": one.ci95, "p": one.p, "p_holm": one.p_holm}
        settings.append(entry)
    return {"metric": metric, "documents": len(rows), "settings": settings}
