"""From token embeddings to one vector a text."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Pooling: TypeAlias = Literal["mean", "cls"]


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool token embeddings in fp32.

    Args:
        tokens: [N, L, H] last hidden states.
        mask: [N, L], 1 for real tokens.
        pooling: `mean` of the real tokens, or `cls`, the first real one.

    Returns:
        [N, H] float32.
    """
    tokens = tokens.float()  # bf16 sums over hundreds of tokens lose the digits that separate close documents
    if pooling == "cls":
        first = mask.argmax(dim=1)  # not column 0: a tokenizer may pad on the left
        return tokens[torch.arange(len(tokens), device=tokens.device), first]
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # [N, L, 1]
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)
