"""Tells queries in another language than the wanted ones (py3langid: Lui and Baldwin 2012, "langid.py").

A query has few words, so the most probable language is often wrong: "Insulin effects appetite" is French by a hair. It
can be told, though, that none of the wanted languages is probable at all. Of 1,600 English queries of SciFact and
MedQuAD, 2 have a probability of English below `IMPROBABLE`; whole questions in German or Chinese have less than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from embfit.index.words import words

IMPROBABLE = 0.02  # probability of all wanted languages together, below which a query is in another one
LEAST_WORDS = 3  # "insulin" is a word of many languages; Chinese characters count as words


def is_in_another_language(text: str, wanted: Sequence[str]) -> bool:
    """Say whether a query is surely in none of the wanted languages.

    Args:
        text: the query. Fewer than three words say too little, and are in no other language.
        wanted: ISO 639-1 codes.
    """
    if len(words(text)) < LEAST_WORDS:
        return False
    probability = {str(code): float(share) for code, share in _detector().rank(text)}
    return sum(probability.get(code, 0.0) for code in wanted) < IMPROBABLE


def unknown_languages(codes: Sequence[str]) -> list[str]:
    """Return the codes that the detector does not know, in order."""
    return [code for code in codes if code not in set(map(str, _detector().labels))]


@cache
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # loads a model of some megabytes

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
