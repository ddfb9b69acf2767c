"""Searching a corpus: nearest neighbours of vectors, exact and approximate, and BM25 over words."""

from embfit.index.exact import search
from embfit.index.lexical import BM25Index, index_words

__all__ = ["BM25Index", "index_words", "search"]
