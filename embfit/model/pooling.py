"""From token embeddings to one vector a text."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Pooling: TypeAlias = Literal["mean", "cls", "lasttoken"]


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool token embeddings in fp32.

    Args:
        tokens: [N, L, H] last hidden states.
        mask: [N, L], 1 for real tokens.
        pooling: `mean` of the real tokens; `cls`, the first real one; or `lasttoken`, the last real one.

    Returns:
        [N, H] float32; the mean of no token at all is 0.
    """
    tokens = tokens.float()  # bf16 sums over hundreds of tokens lose the digits that separate close documents
    if pooling != "mean":  # not the first or last column: a tokenizer may pad on either side
        column = mask.argmax(dim=1) if pooling == "cls" else mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        return tokens[torch.arange(len(tokens), device=tokens.device), column]
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # [N, L, 1]
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
