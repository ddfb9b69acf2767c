"""Which words of a document BM25 takes for words of a query, by their stems."""

from __future__ import annotations

from collections.abc import Callable

from embfit.index.lexical import Language, word_splitter
from embfit.index.terms import words


class WordMatcher:
    """Finds the words that a query and a document share.

    Args:
        language: whose stemmer and stop words count; None takes words as they are.
    """

    def __init__(self, language: Language | None) -> None:
        self.language = language
        self._terms: Callable[[str], list[str]] = word_splitter(language)

    def shared(self, query: str, document: str) -> list[str]:
        """Return the distinct words of a document, in lower case, that have the stem of a word of the query."""
        asked = set(self._terms(query))
        distinct = dict.fromkeys(words(document, self.language))
        return [word for word in distinct if asked.intersection(self._terms(word))]
