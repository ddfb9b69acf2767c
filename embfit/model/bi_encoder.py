"""The bi-encoder: one vector for each text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from embfit.model.encoder import Encoder, Kind
from embfit.model.last_token import check_ends, end_token
from embfit.model.pooling import pool
from embfit.model.projection import Projection, UnitLength
from embfit.model.settings import Settings
from embfit.tokens import Tokens, tokenize_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class BiEncoder(Encoder):
    """A transformers model with prompts, pooling and normalisation; arguments as `Encoder`.

    The head stands between pooling and unit length at the end, as some sentence-transformers models have one.
    """

    settings: Settings

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        head: Sequence[Projection | UnitLength] = (),
        source: str = "",
        further_devices: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, tokenizer, settings, head, source, further_devices)
        self._end = end_token(tokenizer) if settings.pooling == "lasttoken" else None

    def length(self, kind: Kind) -> int:
        """Return how many tokens are read of a text, special tokens included."""
        return self.settings.max_length

    def length_setting(self, kind: Kind) -> str:
        """Return the setting that says `length`, for messages."""
        return "model.max_length"

    @property
    def normalizes(self) -> bool:
        """Whether vectors have unit length."""
        return self.settings.normalize

    def prompt(self, kind: Kind) -> str:
        """Return what is put in front of a query or a document."""
        return self.settings.query_prompt if kind == "query" else self.settings.document_prompt

    def reading(self, kind: Kind, length: int) -> Mapping[str, object]:
        """Return what the tokens of a text depend on besides the tokenizer."""
        return {"prompt": self.prompt(kind), "max_length": length}

    def computing(self) -> Mapping[str, object]:
        """Return what vectors depend on besides the tokens, the weights and the precision."""
        return {"pooling": self.settings.pooling, "normalize": self.settings.normalize}

    def read(self, texts: Iterable[str], kind: Kind, length: int) -> Iterator[Tokens]:
        """Tokenise queries or documents with their prompt."""
        blocks = tokenize_blocks(self.tokenizer, texts, length, self.prompt(kind))
        if self.settings.pooling != "lasttoken":
            return blocks
        return (check_ends(block, self._end) for block in blocks)

    def forward(self, input_ids: Tensor, roles: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids: [N, L] → [N, D] float32, of unit length where the model normalises."""
        hidden = self.hidden_states(input_ids, roles, bf16)
        vectors = pool(hidden, roles, self.settings.pooling)
        for layer in self.head:
            vectors = layer(vectors)
        return functional.normalize(vectors, dim=-1) if self.settings.normalize else vectors
