"""The bi-encoder: one vector for each text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embfit.device_transfer import to_device
from embfit.model.encoder import Encoder, Kind
from embfit.model.fingerprint import digest_tensors
from embfit.model.last_token import check_ends, end_token
from embfit.model.pooling import pool
from embfit.model.projection import Projection, UnitLength
from embfit.model.settings import Settings
from embfit.tokens import ASKED, ATTENDED, Tokens, tokenize_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class BiEncoder(Encoder):
    """A transformers model with prompts, pooling and normalisation; arguments as `Encoder`.

    The head computes between pooling and the final normalisation, as in some sentence-transformers models. After that,
    a query adapter changes the vectors of queries only, which are recognised by their tokens' roles (`ASKED`).
    """

    settings: Settings
    query_adapter: Projection | None

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        head: Sequence[Projection | UnitLength] = (),
        source: str = "",
        further_devices: Sequence[str] = (),
        query_adapter: Projection | None = None,
    ) -> None:
        super().__init__(backbone, tokenizer, settings, head, source, further_devices)
        self.query_adapter = query_adapter
        self._end = end_token(tokenizer) if settings.pooling == "lasttoken" else None

    def length(self, kind: Kind) -> int:
        """Return the most tokens of a text, including special tokens."""
        return self.settings.max_length

    def length_setting(self, kind: Kind) -> str:
        """Return the key of the setting for `length`, for messages."""
        return "model.max_length"

    @property
    def normalizes(self) -> bool:
        """Whether vectors have unit length."""
        return self.settings.normalize

    def prompt(self, kind: Kind) -> str:
        """Return the prompt of queries or documents."""
        return self.settings.query_prompt if kind == "query" else self.settings.document_prompt

    def reading(self, kind: Kind, length: int) -> Mapping[str, object]:
        """Return everything that the tokens of a text depend on, besides the tokenizer."""
        read: dict[str, object] = {"prompt": self.prompt(kind), "max_length": length}
        return read | ({"told_apart": True} if kind == "query" and self.query_adapter is not None else {})

    def adapting(self, kind: Kind) -> Mapping[str, object]:
        """Return what only the vectors of queries depend on: the query adapter."""
        if kind == "document" or self.query_adapter is None:
            return {}
        return {"query_adapter": digest_tensors(self.query_adapter.state_dict())}

    def computing(self) -> Mapping[str, object]:
        """Return everything that vectors depend on, besides the tokens, the weights and the precision."""
        return {"pooling": self.settings.pooling, "normalize": self.settings.normalize}

    def read(self, texts: Iterable[str], kind: Kind, length: int) -> Iterator[Tokens]:
        """Tokenise queries or documents with their prompt."""
        blocks = tokenize_blocks(self.tokenizer, texts, length, self.prompt(kind))
        if self.settings.pooling == "lasttoken":
            blocks = (check_ends(block, self._end) for block in blocks)
        if kind == "query" and self.query_adapter is not None:
            blocks = (replace(block, roles=np.full(len(block.ids), ATTENDED | ASKED, np.uint8)) for block in blocks)
        return blocks

    def text_vectors(self, input_ids: Tensor, attention_mask: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids like documents, without a query adapter: [N, L] → [N, D] float32."""
        vectors = pool(self.hidden_states(input_ids, attention_mask, bf16), attention_mask, self.settings.pooling)
        for layer in self.head:
            vectors = layer(vectors)
        return functional.normalize(vectors, dim=-1) if self.settings.normalize else vectors

    def forward(self, input_ids: Tensor, roles: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids: [N, L] → [N, D] float32, of unit length where the model normalises."""
        vectors = self.text_vectors(input_ids, to_device(roles & ATTENDED, input_ids.device), bf16)
        if self.query_adapter is None:
            return vectors
        asked = to_device((roles & ASKED).any(dim=1, keepdim=True), vectors.device)  # [N, 1]
        return torch.where(asked, functional.normalize(self.query_adapter(vectors), dim=-1), vectors)
