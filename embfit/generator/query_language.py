"""Tells queries in another language than the wanted ones (py3langid: Lui and Baldwin 2012, "langid.py").

A query has few words, so the most probable language is often wrong: "Insulin effects appetite" is French by a hair. So
a query is in another language only if none of the wanted ones is probable and another one is. The second condition is
for names, numbers and key words, which are hardly probable in any language.

`tests/generator/test_query_language.py` holds it to at most 2 of 1,000 English queries of SciFact and MedQuAD, and to 8
of ten short queries in other languages. Key words are at more risk: they have little of a language.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from embfit.index.terms import words

IMPROBABLE = 0.02  # probability of all wanted languages together, below which a query is in none of them
PROBABLE = 0.2  # probability of another language, from which on a query may be in it
LEAST_WORDS = 3  # "insulin" is a word of many languages; Chinese characters count as words


def is_in_another_language(text: str, wanted: Sequence[str]) -> bool:
    """Say whether a query is in a language that is not wanted, as far as its words tell.

    Args:
        text: the query. Fewer than three words say too little, and are in no other language.
        wanted: ISO 639-1 codes.
    """
    if len(words(text)) < LEAST_WORDS:
        return False
    probability = {str(code): float(share) for code, share in _detector().rank(text)}
    of_wanted = sum(probability.pop(code, 0.0) for code in set(wanted))
    return of_wanted < IMPROBABLE and max(probability.values(), default=0.0) >= PROBABLE


def unknown_languages(codes: Sequence[str]) -> list[str]:
    """Return the codes that the detector does not know, in order."""
    known = set(map(str, _detector().labels))
    return [code for code in codes if code not in known]


@cache
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # loads a model of some megabytes

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
