"""Searching a corpus behind one seam (`protocol.Index`): vectors, exactly, approximately or compressed, and words."""

from embfit.index.approximate import ApproximateIndex, open_index
from embfit.index.compressed import CompressedIndex
from embfit.index.exact import ExactIndex
from embfit.index.lexical import BM25Index, index_words
from embfit.index.loading import load_index
from embfit.index.protocol import Index, TextIndex, VectorIndex

__all__ = [
    "ApproximateIndex",
    "BM25Index",
    "CompressedIndex",
    "ExactIndex",
    "Index",
    "TextIndex",
    "VectorIndex",
    "index_words",
    "load_index",
    "open_index",
]
