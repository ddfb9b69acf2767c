"""Late interaction: one vector for each kept token of a text (ColBERT, Khattab and Zaharia 2020).

Texts are read as in PyLate and sentence-transformers' `MultiVectorEncoder`:
- a marker after the first token, `[CLS]`, shows whether the text is a query or a document;
- queries are filled up to a fixed length with mask tokens, which give vectors too (query expansion);
- tokens of documents that are on the skip list, such as punctuation, give no vector.

Each token has its role beside its id (`Tokens.roles`), so a batch may contain both queries and documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from torch import Tensor
from torch.nn import functional

from embfit.device_transfer import to_device
from embfit.model.encoder import Encoder, Kind
from embfit.model.projection import Projection, UnitLength
from embfit.model.settings import LateInteractionSettings
from embfit.ragged import offsets_of
from embfit.tokens import ATTENDED, SCORED, Tokens, tokenize_blocks, tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MARKER_PLACE = 1  # the marker is a text's second token, after `[CLS]`

Spans: TypeAlias = Callable[[str], list[tuple[int, int] | None]]
"""Where in a text the token of each of its vectors is; None for the marker, special tokens and query expansion."""


class LateInteractionEncoder(Encoder):
    """A transformers model whose hidden states of single tokens are projected; arguments as `Encoder`.

    The tokenizer must know the markers; words of the skip list that it does not know are ignored.
    """

    single = False
    settings: LateInteractionSettings

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: LateInteractionSettings,
        head: Sequence[Projection | UnitLength] = (),
        source: str = "",
        further_devices: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, tokenizer, settings, head, source, further_devices)
        self._skipped = known_ids(tokenizer, settings.skip)
        self._expansion_id = expansion_id(tokenizer)

    def length(self, kind: Kind) -> int:
        """Return the most tokens of a query or of a document, including special tokens and the marker."""
        return self.settings.query_length if kind == "query" else self.settings.document_length

    def training_length(self, kind: Kind) -> int:
        """Return the most tokens in training."""
        return self.settings.query_length if kind == "query" else self.settings.training_document_length

    def length_setting(self, kind: Kind) -> str:
        """Return the key of the setting for `length`, for messages."""
        return f"model.{kind}_length"

    @property
    def normalizes(self) -> bool:
        """Vectors always have unit length."""
        return True

    def marker(self, kind: Kind) -> str:
        """Return the marker token of queries or documents; "" for none."""
        return self.settings.query_marker if kind == "query" else self.settings.document_marker

    def reading(self, kind: Kind, length: int) -> Mapping[str, object]:
        """Return everything that tokens and their roles depend on, besides the tokenizer."""
        read = {"marker": self.marker(kind), "length": length}
        if kind == "document":
            return {**read, "skipped": self._skipped.tolist()}
        return {**read, "expansion": self.settings.expansion, "attended": self.settings.attend_to_expansion}

    def computing(self) -> Mapping[str, object]:
        """Return everything that vectors depend on, besides the tokens, the weights and the precision."""
        return {"vectors": "of tokens"}

    def read(self, texts: Iterable[str], kind: Kind, length: int) -> Iterator[Tokens]:
        """Tokenise queries or documents with their marker, expansion and skip list."""
        marker = self.marker(kind)
        blocks = tokenize_blocks(self.tokenizer, texts, length - bool(marker))
        if marker:
            number = int(self.tokenizer.convert_tokens_to_ids(marker))  # type: ignore[arg-type]  # one token's
            blocks = (with_marker(block, number) for block in blocks)
        if kind == "document":
            return (with_roles(block, self._skipped) for block in blocks)
        blocks = (with_roles(block) for block in blocks)
        if self.settings.expansion == "none":
            return blocks
        role = SCORED | (ATTENDED if self.settings.attend_to_expansion else 0)
        return (expanded(block, length, self._expansion_id, role) for block in blocks)

    def vector_counts(self, tokens: Tokens) -> np.ndarray:
        """Return how many tokens of each text give a vector ([N] int64)."""
        return tokens.scored

    def spans(self, kind: Kind) -> Spans:
        """Return a function that finds the token of each vector in a text; it keeps the tokenizer, but no weights."""
        marker = self.marker(kind)
        number = int(self.tokenizer.convert_tokens_to_ids(marker)) if marker else None  # type: ignore[arg-type]
        expands = kind == "query" and self.settings.expansion == "fixed"
        skipped = frozenset(self._skipped.tolist()) if kind == "document" else frozenset()
        return partial(token_spans, self.tokenizer, self.length(kind), number, skipped, expands)

    def forward(self, input_ids: Tensor, roles: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids.

        Shapes:
            input_ids and roles [N, L] → [V, D] float32 of unit length: the vectors of the first text's scored tokens in
            their order, then those of the second text's, and so on.
        """
        scored = to_device((roles & SCORED).flatten().nonzero().squeeze(1), input_ids.device)  # [V]
        hidden = self.hidden_states(input_ids, to_device(roles & ATTENDED, input_ids.device), bf16)  # [N, L, H]
        vectors = hidden.flatten(0, 1).index_select(0, scored).float()  # [V, H]: only these hidden states are projected
        for layer in self.head:
            vectors = layer(vectors)
        return functional.normalize(vectors, dim=-1)


def known_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> np.ndarray:
    """Return the token ids of the words that are single tokens, ascending; other words are left out."""
    vocabulary = tokenizer.get_vocab()
    return np.array(sorted({vocabulary[word] for word in words if word in vocabulary}), np.int64)


def expansion_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that fills queries: the mask token, else the end token, as in PyLate; None without either."""
    mask, end = tokenizer.mask_token_id, tokenizer.eos_token_id
    found: int | None = end if mask is None else mask
    return found


def token_spans(
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    marker: int | None,
    skipped: frozenset[int],
    expands: bool,
    text: str,
) -> list[tuple[int, int] | None]:
    """Return the character span of each token with a vector, in order; None for tokens outside the text.

    Args:
        tokenizer: a fast tokenizer.
        length: the most tokens, including the marker.
        marker: the token after the first one; None for none.
        skipped: tokens without a vector.
        expands: whether the text is filled up to `length`.
        text: the text.
    """
    with tokenizer_lock(tokenizer):
        read = tokenizer(
            text,
            truncation=True,
            max_length=length - (marker is not None),
            padding=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
    tokens: list[tuple[int, tuple[int, int] | None]] = [
        (token, None if special or start == end else (start, end))
        for token, (start, end), special in zip(
            read["input_ids"], read["offset_mapping"], read["special_tokens_mask"], strict=True
        )
    ]
    if marker is not None:
        tokens.insert(MARKER_PLACE, (marker, None))
    spans = [span for token, span in tokens if token not in skipped]
    return spans + [None] * (length - len(spans)) if expands else spans


def with_marker(tokens: Tokens, marker: int) -> Tokens:
    """Insert a token after the first one of each text."""
    places = tokens.starts[:-1] + MARKER_PLACE
    return Tokens(np.insert(tokens.ids, places, marker), tokens.starts + np.arange(len(tokens) + 1), tokens.truncated)


def with_roles(tokens: Tokens, skipped: np.ndarray | None = None) -> Tokens:
    """Return tokens with roles: all are attended to, and those whose id is not in `skipped` are scored."""
    roles = np.full(len(tokens.ids), ATTENDED | SCORED, np.uint8)
    if skipped is not None and len(skipped):
        roles[np.isin(tokens.ids, skipped)] = ATTENDED
    return Tokens(tokens.ids, tokens.starts, tokens.truncated, roles)


def expanded(tokens: Tokens, length: int, filler: int | None, role: int) -> Tokens:
    """Fill each text up to a length with a token that has a given role.

    Raises:
        ValueError: the tokenizer has no token to fill with.
    """
    if filler is None:
        raise ValueError("query expansion needs a mask token or an end token")
    starts = offsets_of(np.full(len(tokens), length))
    places = np.arange(len(tokens.ids)) + np.repeat(starts[:-1] - tokens.starts[:-1], tokens.lengths)
    ids, roles = np.full(int(starts[-1]), filler, np.int32), np.full(int(starts[-1]), role, np.uint8)
    ids[places] = tokens.ids
    roles[places] = ATTENDED | SCORED if tokens.roles is None else tokens.roles
    return Tokens(ids, starts, tokens.truncated, roles)
