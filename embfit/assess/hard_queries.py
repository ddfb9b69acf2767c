"""Queries that one vector a text may serve badly: with a rare word, or about documents that it cuts off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from embfit.evaluator.metrics import answerable
from embfit.index.terms import words
from embfit.records import Collection, Qrels

RARE = 3  # documents at most that contain a rare word


def document_frequency(collection: Collection) -> Counter[str]:
    """Return the number of documents that contain each word, in lower case."""
    frequency: Counter[str] = Counter()
    for text in collection.document_texts():
        frequency.update(set(words(text)))
    return frequency


def is_rare(word: str, frequency: Mapping[str, int]) -> bool:
    """Say whether few documents contain a word, but at least one."""
    return 1 <= frequency.get(word, 0) <= RARE


def rare_term_queries(collection: Collection, qrels: Qrels, frequency: Mapping[str, int]) -> list[str]:
    """Return the answerable queries that have a word which 1 to `RARE` documents contain.

    Args:
        collection: has the queries' texts.
        qrels: the judgements of a split.
        frequency: word → documents that contain it.
    """
    asked = list(answerable(qrels))
    texts = collection.query_texts([collection.query_rows[query] for query in asked])
    return [
        query for query, text in zip(asked, texts, strict=True) if any(is_rare(word, frequency) for word in words(text))
    ]


def cut_off_queries(collection: Collection, qrels: Qrels, truncated: np.ndarray) -> list[str]:
    """Return the answerable queries that have a relevant document which an encoder cuts off.

    Args:
        collection: has the documents.
        qrels: the judgements of a split.
        truncated: [N] bool, true for the documents that are cut off.
    """
    rows = collection.document_rows
    return [
        query
        for query, grades in answerable(qrels).items()
        if any(grade >= 1 and truncated[rows[document]] for document, grade in grades.items())
    ]
