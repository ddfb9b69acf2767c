"""The query explorer: the queries that changed most, with every system's first documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embfit.evaluator.metrics import answerable
from embfit.records import Collection, Evaluation, MatchedWords
from embfit.report.formatting import cut_at_word
from embfit.report.snippets import part, snippet
from embfit.report.subject import Subject

PLACE = 80

QUERIES = 200  # embedded in the page, which stays near a megabyte
DOCUMENTS = 10  # shown of each ranking
CHARACTERS = 300  # of a text
EXPLAINED = 3  # documents of a late-interaction ranking whose matched words are told, a kilobyte each
EXPLAINED_QUERIES = 100  # of those embedded
LEAST = 0.005  # part of a score below which a word is not told


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the explorer's data, where there are rankings to explore."""
    if subject.collection is None or not subject.systems:
        return None
    return {
        "title": "Queries",
        "compared": subject.main is not None,
        "explains": any(evaluation.explain for evaluation in subject.report.evaluations),
        "explorer": explorer(subject, subject.collection),
    }


def explorer(subject: Subject, collection: Collection) -> dict[str, Any]:
    """Return the explorer's data as JSON values.

    `systems` are names, and `pair` the two first shown; `metric` is the headline's. A query has `text`, its `subset` if
    there are any, `values` and `ranked` (places in `documents` and scores) for each system, and `relevant`: place in
    `documents`, grade, and the rank in each system (null beyond its ranking). A document has `id` and `text`. Where a
    system is late interaction, a query's `matched` has, for its first documents, `pieces` of the text with the part of
    the score found in each, `words` (the query's, the document's or null, its part) and `own` (of the model's tokens).
    """
    evaluations = subject.report.evaluations
    metric = next(iter(evaluations[0].metrics))
    main = subject.main
    pair = (main.a, main.b) if main else (evaluations[0].system, evaluations[-1].system)
    shown = _most_changed(evaluations, metric, pair)
    places: dict[str, int] = {}
    qrels = answerable(collection.qrels[evaluations[0].split])
    queries = [_query(query, qrels[query], evaluations, metric, collection, places) for query in shown]
    for query, entry in zip(shown[:EXPLAINED_QUERIES], queries, strict=False):
        entry["matched"] = [_matched(query, evaluation, collection) for evaluation in evaluations]
    rows = [collection.document_rows[document] for document in places]
    texts = map(_cut, collection.document_texts(rows))
    return {
        "metric": metric,
        "systems": [evaluation.system for evaluation in evaluations],
        "pair": list(pair),
        "total": len(evaluations[0].per_query[metric]),
        "queries": queries,
        "documents": [{"id": document, "text": text} for document, text in zip(places, texts, strict=True)],
    }


def _most_changed(evaluations: Sequence[Evaluation], metric: str, pair: tuple[str, str]) -> list[str]:
    """Return queries by the size of their change, and those that fare worst first where nothing changed."""
    values = {evaluation.system: evaluation.per_query[metric] for evaluation in evaluations}
    before, after = (values[system] for system in pair)
    return sorted(before, key=lambda query: (-abs(after[query] - before[query]), after[query], query))[:QUERIES]


def _query(
    query: str,
    grades: Mapping[str, int],
    evaluations: Sequence[Evaluation],
    metric: str,
    collection: Collection,
    places: dict[str, int],
) -> dict[str, Any]:
    """Describe one query, giving each document that it shows a place."""

    def place(document: str) -> int:
        return places.setdefault(document, len(places))

    ranks = [
        {document: rank for rank, (document, _) in enumerate(evaluation.ranking.documents.get(query, ()), 1)}
        for evaluation in evaluations
    ]
    (text,) = collection.query_texts([collection.query_rows[query]])
    return {
        "text": _cut(text),
        "subset": _subset(query, evaluations[0]),
        "values": [evaluation.per_query[metric][query] for evaluation in evaluations],
        "ranked": [
            [
                (place(document), round(score, 4))
                for document, score in evaluation.ranking.documents.get(query, ())[:DOCUMENTS]
            ]
            for evaluation in evaluations
        ],
        "relevant": [
            (place(document), grade, [system.get(document) for system in ranks])
            for document, grade in sorted(grades.items(), key=lambda pair: (-pair[1], pair[0]))
            if grade >= 1
        ],
    }


def _matched(query: str, evaluation: Evaluation, collection: Collection) -> list[dict[str, Any]]:
    """Return which words matched in a query's first documents; empty where the system cannot tell."""
    if evaluation.explain is None:
        return []
    names = [document for document, _ in evaluation.ranking.documents.get(query, ())[:EXPLAINED]]
    texts = collection.document_texts([collection.document_rows[name] for name in names])
    found = evaluation.explain(query, names)
    return [_told(text, matched) for text, matched in zip(texts, found, strict=True)]


def _told(text: str, matched: MatchedWords) -> dict[str, Any]:
    parts = [(match.word, match.found, round(part(match.share, matched), 3)) for match in matched.words]
    return {
        "pieces": [(piece, round(share, 3)) for piece, share in snippet(text, matched, CHARACTERS)],
        "words": [told for told in parts if told[2] >= LEAST],
        "own": round(part(matched.own, matched), 3),
    }


def _subset(query: str, evaluation: Evaluation) -> str | None:
    return next((subset for subset, queries in evaluation.subsets.items() if query in queries), None)


def _cut(text: str) -> str:
    """Return a text on one line, cut near the limit."""
    return cut_at_word(" ".join(text.split()), CHARACTERS)
