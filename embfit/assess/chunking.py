"""What is lost where documents are longer than the model reads, and whether shorter pieces find more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embfit.assess.pieces import evaluate_best_piece, evaluate_pieces
from embfit.evaluator.subcorpus import subcorpus
from embfit.evaluator.systems import Bench
from embfit.model import embed

CUT_OFF = "cut off"


def compare_chunks(bench: Bench, sizes: Sequence[int] | None, documents: int) -> dict[str, Any]:
    """Measure the configured model on documents cut off at its length, and on documents in pieces.

    All are measured on the same part of the corpus, the judged documents and a sample of the others: quick, and too
    easy, so the values are to be compared with each other alone.

    Args:
        bench: has the collection and the model.
        sizes: tokens of a piece; None is the model's length and half of it. Those that it cannot read are left out.
        documents: searched, at most, unless more are judged.

    Returns:
        `documents` searched, and `settings`: name, tokens, pieces for each document, nDCG and so on, and the difference
        to cutting off with its 95 % interval and p.
    """
    encoder, collection = bench.encoder, bench.collection
    wanted = sizes or (encoder.max_length, encoder.max_length // 2)
    rows = subcorpus(collection, bench.split, documents)
    whole = np.asarray(embed(encoder, collection, "document", bench.store).matrix[rows])
    systems = {CUT_OFF: (encoder.max_length, evaluate_best_piece(CUT_OFF, bench, rows, whole, np.arange(len(rows))))}
    for tokens in sorted({size for size in wanted if size <= encoder.max_length}, reverse=True):
        name = f"pieces of {tokens}"
        systems[name] = (tokens, evaluate_pieces(name, bench, rows, tokens))
    base = systems[CUT_OFF][1]
    metric = bench.evaluator.metrics[0]
    settings = []
    for name, (tokens, found) in systems.items():
        entry = {"name": name, "tokens": tokens, "pieces_per_document": found.facts["pieces"] / len(rows)}
        entry["metrics"] = dict(found.metrics)
        if name != CUT_OFF:
            against = bench.evaluator.compare(base, found)[0]
            entry |= {"difference": against.difference, "ci95": against.ci95, "p": against.p}
        settings.append(entry)
    return {"metric": metric, "documents": len(rows), "settings": settings}
