"""Pooling: one vector for each text from its token embeddings."""

from __future__ import annotations

from typing import Literal, TypeAlias

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
    tokens = tokens.float()  # bf16 sums over hundreds of tokens lose the digits that distinguish similar documents
    if pooling != "mean":  # not the first or last column: a tokenizer may pad on either side
        column = mask.argmax(dim=1) if pooling == "cls" else mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        # gather, because exporters would treat the number of texts as a constant in an index
        return tokens.gather(1, column[:, None, None].expand(-1, 1, tokens.shape[-1])).squeeze(1)
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # [N, L, 1]
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
