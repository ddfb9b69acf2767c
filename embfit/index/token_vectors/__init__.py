"""Search documents of several vectors each by MaxSim: compressed, memory-mapped, with candidates from centroids."""

from embfit.index.token_vectors.codec import TOKEN_FORMATS, TokenCodec, TokenFormat
from embfit.index.token_vectors.index import TokenIndex
from embfit.index.token_vectors.settings import TokenCandidates, TokenIndexing
from embfit.index.token_vectors.stored import stored_token_index, token_index_key

__all__ = [
    "TOKEN_FORMATS",
    "TokenCandidates",
    "TokenCodec",
    "TokenFormat",
    "TokenIndex",
    "TokenIndexing",
    "stored_token_index",
    "token_index_key",
]
