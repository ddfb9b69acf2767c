"""What is lost where documents are longer than the model reads, and whether shorter pieces find more."""

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
    """Return the sizes to try, largest first: those that a model reads whole, by default its length and half of it.

    Raises:
        ConfigError: it reads none of them whole.
    """
    chosen = sorted(set(sizes or (limit, limit // 2)), reverse=True)
    if not (readable := [size for size in chosen if size <= limit]):
        raise ConfigError(
            f"task.chunk_sizes={chosen}: the model reads {limit} tokens, and each of them is more; give smaller ones, "
            "or raise model.max_length if its positions allow"
        )
    for size in chosen[: len(chosen) - len(readable)]:
        log.warning(
            "task.chunk_sizes: %d is left out, since the model reads %d tokens; raise model.max_length if its "
            "positions allow",
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

    All are measured on the same part of the corpus, the judged documents and a sample of the others: quick, and too
    easy, so the values are to be compared with each other alone.

    Args:
        context: has the collection and the model.
        sizes: how many tokens a piece has, from `piece_sizes`.
        documents: how many documents are searched at most, unless more are judged.
        compare_all: compares systems with the first of them.

    Returns:
        `documents` searched, and `settings`: name, tokens, pieces for each document, nDCG and so on, and the difference
        to cutting off with its 95 % interval and p, and `p_holm`, corrected for the number of sizes where there are
        several.
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
