"""Search a corpus through one interface (`protocol.Index`): by vectors, one or several a document, or by words."""

from embfit.index.approximate import ApproximateIndex, open_index
from embfit.index.builders import ApproximateBuilder, AutoBuilder, ExactBuilder, FunnelBuilder, TokenBuilder
from embfit.index.compressed import CompressedIndex
from embfit.index.databases.database_index import DatabaseIndex
from embfit.index.databases.milvus import MilvusBuilder
from embfit.index.databases.pgvector import PgvectorBuilder
from embfit.index.exact import ExactIndex
from embfit.index.funnel import FunnelIndex
from embfit.index.lexical import BM25Index, index_words
from embfit.index.loading import load_hosted, load_index
from embfit.index.protocol import (
    EarlierIndex,
    Index,
    IndexBuilder,
    IndexInput,
    Publication,
    TextIndex,
    VectorIndex,
)
from embfit.index.token_vectors import TokenIndex, TokenIndexing

__all__ = [
    "ApproximateBuilder",
    "ApproximateIndex",
    "AutoBuilder",
    "BM25Index",
    "CompressedIndex",
    "DatabaseIndex",
    "EarlierIndex",
    "ExactBuilder",
    "ExactIndex",
    "FunnelBuilder",
    "FunnelIndex",
    "Index",
    "IndexBuilder",
    "IndexInput",
    "MilvusBuilder",
    "PgvectorBuilder",
    "Publication",
    "TextIndex",
    "TokenBuilder",
    "TokenIndex",
    "TokenIndexing",
    "VectorIndex",
    "index_words",
    "load_hosted",
    "load_index",
    "open_index",
]
