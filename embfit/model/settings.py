"""What encoders and cross-encoders do around their backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embfit.model.pooling import Pooling
from embfit.model.precision import Precision

Attention: TypeAlias = Literal["auto", "sdpa", "eager", "flash_attention_2"]


@dataclass(frozen=True)
class Settings:
    """What an encoder does around its backbone.

    Args:
        pooling: how token embeddings become one vector.
        normalize: whether vectors get unit length.
        max_length: how many tokens are read of a text, special ones included.
        query_prompt: what is put in front of each query.
        document_prompt: what is put in front of each document.
        precision: what the backbone computes in.
        attention: which of transformers' implementations computes attention; auto leaves the choice to embfit.
        compile: whether training runs the backbone through `torch.compile`.
    """

    pooling: Pooling
    normalize: bool
    max_length: int
    query_prompt: str
    document_prompt: str
    precision: Precision = "auto"
    attention: Attention = "auto"
    compile: bool = False


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
