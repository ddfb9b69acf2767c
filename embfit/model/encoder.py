"""The encoder: texts in, vectors out; one engine for training, mining, evaluation and search.

A bi-encoder gives one vector for each text. What encodes (`encode_tokens`, `embfit.model.embed`) asks `vector_counts`
how many there are, so an encoder that gives several overrides that method and `forward`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embfit.errors import UserError
from embfit.model.compiled import compiled_hidden_states, hidden_states
from embfit.model.fingerprint import model_fingerprint
from embfit.model.last_token import check_ends, end_token
from embfit.model.layers import without_cache
from embfit.model.pooling import pool
from embfit.model.precision import autocast, default_token_budget, uses_bf16
from embfit.model.projection import Projection, UnitLength
from embfit.model.settings import Settings
from embfit.progress import Advance, progress
from embfit.tokens import Tokens, plan_batches, tokenize, tokenize_blocks
from embfit.vectors import Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Kind: TypeAlias = Literal["query", "document"]


class Encoder(nn.Module):
    """A transformers model with pooling, prompts and normalisation.

    Args:
        backbone: gives `last_hidden_state`.
        tokenizer: a fast tokenizer of the same model.
        settings: how text is read and pooled, and what the backbone computes in.
        head: layers after pooling, in order, as some sentence-transformers models have.
        source: where the weights came from, for records and messages.
        further_devices: devices of further processes that share the encoding of many texts with this one.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        head: Sequence[Projection | UnitLength] = (),
        source: str = "",
        further_devices: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        self.head = nn.ModuleList(head)
        self.source = source
        self.further_devices = tuple(further_devices)
        widths = [layer.linear.out_features for layer in head if isinstance(layer, Projection)]
        self._width = int(widths[-1] if widths else backbone.config.get_text_config().hidden_size)
        self._end = end_token(tokenizer) if settings.pooling == "lasttoken" else None
        self._options = without_cache(backbone)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that share the encoding of many texts, this encoder's own first."""
        return str(self.device), *self.further_devices

    @property
    def max_length(self) -> int:
        """Tokens read of a text, special tokens included."""
        return self.settings.max_length

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return self._width

    @property
    def compiled(self) -> bool:
        """Whether training runs the backbone through `torch.compile`."""
        return self.settings.compile

    def prompt(self, kind: Kind) -> str:
        """Return what is put in front of a query or a document."""
        return self.settings.query_prompt if kind == "query" else self.settings.document_prompt

    def forward(self, input_ids: Tensor, attention_mask: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids.

        Shapes:
            input_ids and attention_mask [N, L] → [V, D] float32, the vectors of all texts in order, of unit length
            where the model normalises; a bi-encoder has V = N.
        """
        # encoding for storage is not compiled: what it gives must not depend on how a model was trained
        run = compiled_hidden_states if self.compiled and not torch.is_inference_mode_enabled() else hidden_states
        with autocast(input_ids.device, bf16):  # the backbone alone: pooling and what follows are fp32
            hidden = run(self.backbone, input_ids, attention_mask, self._options)
        vectors = pool(hidden, attention_mask, self.settings.pooling)
        for layer in self.head:
            vectors = layer(vectors)
        return functional.normalize(vectors, dim=-1) if self.settings.normalize else vectors

    def tokenize(self, texts: Iterable[str], kind: Kind) -> Tokens:
        """Tokenise queries or documents with their prompt."""
        return self._checked(tokenize(self.tokenizer, texts, self.max_length, self.prompt(kind)))

    def tokenize_blocks(self, texts: Iterable[str], kind: Kind) -> Iterator[Tokens]:
        """Tokenise like `tokenize`, a few thousand texts at a time."""
        blocks = tokenize_blocks(self.tokenizer, texts, self.max_length, self.prompt(kind))
        return (self._checked(block) for block in blocks)

    def vector_counts(self, tokens: Tokens) -> np.ndarray | None:
        """Return how many vectors each text has ([N] int64), which its tokens tell; None says one each."""
        return None

    def embed(self, texts: Iterable[str], kind: Kind) -> Vectors[np.ndarray]:
        """Embed texts: their vectors (float32), in the order given.

        Texts are sorted by length and padded little; the next ones are tokenised while these are computed.
        """
        parts = [self.encode_tokens(block) for block in self.tokenize_blocks(texts, kind)]
        return concatenate(parts) if parts else self.encode_tokens(self.tokenize([], kind))

    def encode(self, texts: Iterable[str], kind: Kind) -> np.ndarray:
        """Embed texts with one vector each: [N, D] float32, in the order given.

        Raises:
            UserError: the model gives several vectors for each text.
        """
        vectors = self.embed(texts, kind)
        if not vectors.single:
            raise UserError(f"{self.source} gives several vectors for each text: call embed, which tells them apart")
        return vectors.rows

    def encode_tokens(self, tokens: Tokens, label: str | None = None) -> Vectors[np.ndarray]:
        """Embed tokenised texts.

        Args:
            tokens: N texts, with their prompts.
            label: the name under which progress is shown; None shows none.
        """
        starts = self.vector_starts(tokens)
        rows = np.empty((len(tokens) if starts is None else int(starts[-1]), self.width), np.float32)
        vectors = Vectors(rows, starts)
        with progress(label, len(tokens), "texts") as advance:
            self.encode_batches(tokens, self.plan(tokens), vectors, advance)
        return vectors

    def vector_starts(self, tokens: Tokens) -> np.ndarray | None:
        """Return where each text's vectors begin ([N + 1] int64); None says one each."""
        counts = self.vector_counts(tokens)
        return None if counts is None else np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def plan(self, tokens: Tokens) -> list[np.ndarray]:
        """Return the batches, as row numbers, in which texts are encoded: the same for the same texts and device."""
        return plan_batches(tokens.lengths, self.token_budget)

    @property
    def token_budget(self) -> int:
        """Padded tokens of a batch on the device that the encoder is on."""
        return default_token_budget(self.device)

    def _checked(self, tokens: Tokens) -> Tokens:
        return check_ends(tokens, self._end) if self.settings.pooling == "lasttoken" else tokens

    @torch.inference_mode()
    def encode_batches(
        self, tokens: Tokens, batches: Iterable[np.ndarray], out: Vectors[np.ndarray], advance: Advance
    ) -> None:
        """Embed some of the batches of `plan`.

        Args:
            tokens: N texts, with their prompts.
            batches: numbers of texts, batch by batch.
            out: the vectors of all N texts, whose rows, possibly memory-mapped, are filled in order of length.
            advance: called with the number of texts after each batch.
        """
        device, training = self.device, self.training
        bf16 = uses_bf16(self.settings.precision, device)
        self.eval()
        try:
            for texts in batches:
                ids, mask = tokens.padded(texts, self.pad_id, self.pads_left)
                out.rows[places(out.starts, texts)] = self(ids.to(device), mask.to(device), bf16).cpu().numpy()
                advance(len(texts))
        finally:
            self.train(training)

    @property
    def pad_id(self) -> int:
        """The padding token's id; masked, so any id does where a tokenizer has none."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def pads_left(self) -> bool:
        """Whether the tokenizer asks for padding on the left."""
        return bool(self.tokenizer.padding_side == "left")

    def fingerprint(self, kind: Kind) -> str:
        """Identify what the vector of a query, or of a document, depends on besides its text.

        That is the weights, the configuration, the tokenizer, pooling, length, precision and that side's prompt. The
        weights are read anew each time, except within `embfit.model.frozen`.
        """
        around = {
            "back_end": "torch",
            "pooling": self.settings.pooling,
            "head": [layer.description for layer in self.head],
            "normalize": self.settings.normalize,
            "max_length": self.settings.max_length,
            "prompt": self.prompt(kind),
            "bf16": uses_bf16(self.settings.precision, self.device),
        }
        return model_fingerprint(self, self.backbone, self.tokenizer, around)


def places(starts: np.ndarray | None, texts: np.ndarray) -> np.ndarray:
    """Return the rows of texts' vectors, text after text.

    Args:
        starts: [N + 1] int64, where each text's vectors begin; None where each has one.
        texts: [n] numbers of texts.
    """
    if starts is None:
        return texts
    counts = starts[texts + 1] - starts[texts]
    ends = np.cumsum(counts)
    rows: np.ndarray = np.arange(ends[-1]) + np.repeat(starts[texts] - ends + counts, counts)
    return rows


def concatenate(parts: Sequence[Vectors[np.ndarray]]) -> Vectors[np.ndarray]:
    """Put the vectors of several lots of texts one after another."""
    rows = np.concatenate([part.rows for part in parts])
    if parts[0].starts is None:
        return Vectors(rows)
    return Vectors(rows, np.concatenate([[0], np.cumsum(np.concatenate([part.counts for part in parts]))]))
