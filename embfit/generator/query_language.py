"""Detect queries in languages other than the wanted ones (py3langid: Lui and Baldwin 2012, "langid.py").

A query has few words, so the most probable language is often wrong: "Insulin effects appetite" is classified as French.
So a query counts as one in another language only if none of the wanted languages is probable and another one is. The
second condition is for names, numbers and key words, which are improbable in every language.

`tests/generator/test_query_language.py` checks that at most 2 of 1,000 English queries of SciFact and MedQuAD are
rejected, and at least 8 of ten short queries in other languages. Errors are more frequent for key words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from embfit.index.terms import words

IMPROBABLE = 0.02  # if all wanted languages together are less probable, a query is in none of them
PROBABLE = 0.2  # the least probability of another language that a query may be in
LEAST_WORDS = 3  # "insulin" is a word in many languages; Chinese characters count as words


def is_in_another_language(text: str, wanted: Sequence[str]) -> bool:
    """Return whether a query is probably in a language that is not wanted.

    Args:
        text: the query; the answer for fewer than three words is no.
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
