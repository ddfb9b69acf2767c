"""Checks of a query and its document that need no model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from embfit.index.terms import words

_REFUSAL = re.compile(
    r"^(i['’]?m sorry|i am sorry|sorry[,.]|i (cannot|can['’]t|am unable)|as an? (ai|language model)\b)", re.IGNORECASE
)
_TEXT = "(?:abstract|article|document|excerpt|page|paper|passage|section|study|text)"
_MENTION = re.compile(
    rf"\b(?:this|the (?:above|given|provided|following)|according to the) {_TEXT}\b"
    rf"|\bthe (?:{_TEXT}|authors?) (?:describes?|discuss(?:es)?|says?|states?|mentions?|shows?)\b",
    re.IGNORECASE,
)


def misshapen(query: str, min_words: int, max_words: int) -> bool:
    """Return whether a query has too few or too many words, or is a model's refusal to write one."""
    return not min_words <= len(words(query)) <= max_words or _REFUSAL.search(query) is not None


def mentions_document(query: str) -> bool:
    """Return whether a query mentions its document ("this article"), which a searcher has not seen."""
    return _MENTION.search(query) is not None


def longest_run(query: Sequence[str], document: Sequence[str]) -> int:
    """Return the number of words in the longest sequence that a query and a document share."""
    text = f" {' '.join(document)} "
    longest = 0
    for start in range(len(query)):
        while start + longest < len(query) and f" {' '.join(query[start : start + longest + 1])} " in text:
            longest += 1
    return longest
