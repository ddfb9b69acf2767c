"""The settings of encoders and cross-encoders around their backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embfit.model.pooling import Pooling
from embfit.model.precision import Precision

Attention: TypeAlias = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Expansion: TypeAlias = Literal["fixed", "none"]


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The settings of any encoder.

    Args:
        precision: the number format of the backbone.
        attention: transformers' implementation of attention; auto lets embfit choose.
        compile: whether training runs the backbone through `torch.compile`.
    """

    precision: Precision = "auto"
    attention: Attention = "auto"
    compile: bool = False


@dataclass(frozen=True)
class Settings(EncoderSettings):
    """The settings of a bi-encoder.

    Args:
        pooling: how token embeddings become one vector.
        normalize: whether vectors get unit length.
        max_length: the most tokens of a text, including special tokens.
        query_prompt: the text that is put before each query.
        document_prompt: the text that is put before each document.
    """

    pooling: Pooling
    normalize: bool
    max_length: int
    query_prompt: str
    document_prompt: str


@dataclass(frozen=True)
class LateInteractionSettings(EncoderSettings):
    """The settings of a late-interaction encoder (Khattab and Zaharia 2020, section 3.2).

    Args:
        query_marker: the token after the first one of each query; "" for none.
        document_marker: the token after the first one of each document.
        query_length: the most tokens of a query, including special tokens and the marker.
        document_length: the most tokens of a document.
        training_document_length: the most tokens of a document in training.
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
    """The settings of a cross-encoder.

    Args:
        max_length: the most tokens of a pair, including special tokens.
        precision: the number format of the backbone.
        attention: transformers' implementation of attention; auto lets embfit choose.
    """

    max_length: int
    precision: Precision = "auto"
    attention: Attention = "auto"
