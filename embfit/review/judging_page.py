"""The page on which first results are judged."""

from __future__ import annotations

from collections.abc import Sequence

from embfit.index.language import language_of
from embfit.review.card_page import Answer, Card, CardPage
from embfit.review.judgement_pool import JudgementPool
from embfit.review.matched_words import WordMatcher
from embfit.store import Store, digest

SCALES = {
    1: ("Not relevant", "Relevant"),
    2: ("Not relevant", "Partly relevant", "Relevant"),
    3: ("Not relevant", "Related", "Partly relevant", "Relevant"),
}
"""Highest grade → what the grades mean, from 0."""


def judging_page(
    pool: JudgementPool, pairs: Sequence[tuple[str, str]], highest: int, store: Store, hint: str
) -> CardPage:
    """Return the page of some results; it does not say which system found them.

    Args:
        pool: has the queries and documents.
        pairs: ids of query and document of each card.
        highest: the highest grade, a key of `SCALES`.
        store: keeps the language that is detected in the documents.
        hint: the command that reads what is exported.
    """
    collection = pool.collection
    matcher = WordMatcher(language_of("auto", collection, store, "evaluator.language"))
    queries = collection.query_texts([collection.query_rows[query] for query, _ in pairs])
    documents = collection.corpus.select([collection.document_rows[document] for _, document in pairs])
    columns = zip(pairs, queries, documents["title"], documents["text"], strict=True)
    return CardPage(
        kind="judge",
        name=f"{collection.name} · {pool.split}",
        source=digest(
            {
                "corpus": collection.corpus_digest,
                "split": pool.split,
                "queries": sorted(pool.judged),
                "highest": highest,  # a grade of 1 means another thing on another scale
            }
        ),
        answers=[Answer(grade, str(grade), label) for grade, label in enumerate(SCALES[highest])],
        cards=[
            Card(query, asked, document, title, text, matcher.shared(asked, f"{title} {text}"))
            for (query, document), asked, title, text in columns
        ],
        hint=hint,
    )
