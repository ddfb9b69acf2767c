"""What encoders and cross-encoders do around their backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embfit.model.pooling import Pooling
from embfit.model.precision import Precision

Attention: TypeAlias = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Expansion: TypeAlias = Literal["fixed", "none"]


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """How an encoder computes, of whatever kind it is.

    Args:
        precision: what the backbone computes in.
        attention: which of transformers' implementations computes attention; auto leaves the choice to embfit.
        compile: whether training runs the backbone through `torch.compile`.
    """

    precision: Precision = "auto"
    attention: Attention = "auto"
    compile: bool = False


@dataclass(frozen=True)
class Settings(EncoderSettings):
    """What a bi-encoder does around its backbone.

    Args:
        pooling: how token embeddings become one vector.
        normalize: whether vectors get unit length.
        max_length: how many tokens are read of a text, special ones included.
        query_prompt: what is put in front of each query.
        document_prompt: what is put in front of each document.
    """

    pooling: Pooling
    normalize: bool
    max_length: int
    query_prompt: str
    document_prompt: str


@dataclass(frozen=True)
class LateInteractionSettings(EncoderSettings):
    """What a late-interaction encoder does around its backbone (Khattab and Zaharia 2020, section 3.2).

    Args:
        query_marker: the token that stands behind the first one of each query; "" is none.
        document_marker: the token that stands behind the first one of each document.
        query_length: how many tokens a query has at most, special ones and the marker included.
        document_length: how many a document has.
        training_document_length: how many are read of a document in training.
        expansion: `fixed` fills queries up to `query_length` with mask tokens, which give vectors, too.
        attend_to_expansion: whether the query's own tokens attend to those mask tokens.
        skip: tokens of documents that give no vector.
    """

    query_marker: str
    document_marker: str
    query_length: int
    document_length: int
    training_document_length: int
    expansion: Expansion
    attend_to_expansion: bool
    skip: tuple[str, ...]


@dataclass(frozen=True)
class PairSettings:
    """What a cross-encoder does around its backbone.

    Args:
        max_length: how many tokens are read of a pair, special ones included.
        precision: what the backbone computes in.
        attention: which of transformers' implementations computes attention; auto leaves the choice to embfit.
    """

    max_length: int
    precision: Precision = "auto"
    attention: Attention = "auto"
