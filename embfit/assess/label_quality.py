"""How far the judgements can be trusted: unjudged documents at the top of the rankings, and copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from embfit.evaluator.metrics import answerable
from embfit.evaluator.systems import EvaluationContext
from embfit.evaluator.unjudged import TOP, count_unjudged
from embfit.records import Collection, Evaluation, Qrels


def judgement_gaps(context: EvaluationContext, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Count the unjudged documents among the first ten of each system, and documents with the same text.

    Args:
        context: the evaluation's context, with the collection and its split.
        evaluations: the systems' evaluations.

    Returns:
        `queries`: the number of queries.
        `relevant_per_query`: the mean number of relevant documents.
        `unjudged_at_10`: system → the share of unjudged documents among the first ten.
        `copied_documents`: the number of documents whose text another document has, too.
        `copies_not_judged`: the number of copies of a relevant document that nobody judged relevant; they count as
            wrong.
    """
    collection, qrels = context.collection, answerable(context.collection.qrels[context.split])
    copies = collection.document_copies
    sizes = Counter(copies.tolist())
    groups: dict[int, list[str]] = {}
    for row, first in enumerate(copies.tolist()):
        if sizes[first] > 1:
            groups.setdefault(first, []).append(collection.document_ids[row])
    missed = 0
    for grades in qrels.values():
        relevant = [id for id, grade in grades.items() if grade >= 1]
        firsts = {int(copies[collection.document_rows[id]]) for id in relevant}
        missed += sum(id not in grades for first in firsts for id in groups.get(first, ()))
    return {
        "queries": len(qrels),
        "relevant_per_query": sum(g >= 1 for grades in qrels.values() for g in grades.values()) / len(qrels),
        "unjudged_at_10": {evaluation.system: _unjudged(evaluation, qrels) for evaluation in evaluations},
        "copied_documents": copied_documents(collection),
        "copies_not_judged": missed,
    }


def copied_documents(collection: Collection) -> int:
    """Return the number of documents whose text another document has, too."""
    return sum(size for size in Counter(collection.document_copies.tolist()).values() if size > 1)


def _unjudged(evaluation: Evaluation, qrels: Qrels) -> float:
    shown = sum(len(evaluation.ranking.documents.get(query, ())[:TOP]) for query in qrels)
    return sum(count_unjudged(evaluation.ranking, qrels).values()) / (shown or 1)
