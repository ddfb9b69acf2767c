"""The bi-encoder: texts in, one vector each out; one engine for training, mining, evaluation and search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embfit.model.compiled import compiled_hidden_states, hidden_states
from embfit.model.fingerprint import model_fingerprint
from embfit.model.folder import Projection, Settings
from embfit.model.last_token import check_ends, end_token
from embfit.model.layers import without_cache
from embfit.model.pooling import pool
from embfit.model.precision import autocast, default_token_budget, uses_bf16
from embfit.progress import Advance, progress
from embfit.tokens import Tokens, plan_batches, tokenize, tokenize_blocks

Kind: TypeAlias = Literal["query", "document"]


class Encoder(nn.Module):
    """A transformers model with pooling, prompts and normalisation.

    Args:
        backbone: gives `last_hidden_state`.
        tokenizer: a fast tokenizer of the same model.
        settings: pooling, prompts, maximum length, normalisation and precision.
        projections: dense layers after pooling, as some sentence-transformers models have.
        source: where the weights came from, for records and messages.
        beside: devices of further processes that share the encoding of many texts with this one's.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        projections: Sequence[Projection] = (),
        source: str = "",
        beside: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        self.projections = nn.ModuleList(projections)
        self.source = source
        self.beside = tuple(beside)
        hidden = backbone.config.get_text_config().hidden_size
        self._width = int(projections[-1].linear.out_features if projections else hidden)
        self._end = end_token(tokenizer) if settings.pooling == "lasttoken" else None
        self._options = without_cache(backbone)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

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
            input_ids and attention_mask [N, L] → [N, D] float32, rows of unit length when the model normalises.
        """
        # encoding for storage is not compiled: what it gives must not depend on how a model was trained
        run = compiled_hidden_states if self.compiled and not torch.is_inference_mode_enabled() else hidden_states
        with autocast(input_ids.device, bf16):  # the backbone alone: pooling and what follows are fp32
            hidden = run(self.backbone, input_ids, attention_mask, self._options)
        vectors = pool(hidden, attention_mask, self.settings.pooling)
        for projection in self.projections:
            vectors = projection(vectors)
        return functional.normalize(vectors, dim=-1) if self.settings.normalize else vectors

    def tokenize(self, texts: Iterable[str], kind: Kind) -> Tokens:
        """Tokenise queries or documents with their prompt."""
        return self._checked(tokenize(self.tokenizer, texts, self.max_length, self.prompt(kind)))

    def tokenize_blocks(self, texts: Iterable[str], kind: Kind) -> Iterator[Tokens]:
        """Tokenise like `tokenize`, a few thousand texts at a time."""
        blocks = tokenize_blocks(self.tokenizer, texts, self.max_length, self.prompt(kind))
        return (self._checked(block) for block in blocks)

    def encode(self, texts: Iterable[str], kind: Kind) -> np.ndarray:
        """Embed texts: [N, D] float32, in the order given.

        Texts are sorted by length and padded little; the next ones are tokenised while these are computed.
        """
        blocks = self.tokenize_blocks(texts, kind)
        vectors = [self.encode_tokens(block, np.empty((len(block), self.width), np.float32)) for block in blocks]
        return np.concatenate(vectors) if vectors else np.empty((0, self.width), np.float32)

    def encode_tokens(self, tokens: Tokens, out: np.ndarray, label: str | None = None) -> np.ndarray:
        """Embed tokenised texts into `out` ([N, D] float32, possibly memory-mapped), and return it.

        Args:
            tokens: N texts, with their prompts.
            out: filled row by row; written in order of length, not of row.
            label: show progress under this name.
        """
        batches = self.plan(tokens)
        with progress(label, len(tokens), "texts") as advance:
            self.encode_batches(tokens, batches, out, advance)
        return out

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
    def encode_batches(self, tokens: Tokens, batches: Iterable[np.ndarray], out: np.ndarray, advance: Advance) -> None:
        """Embed some of the batches of `plan` into their rows of `out`, calling `advance` after each."""
        device, training = self.device, self.training
        bf16 = uses_bf16(self.settings.precision, device)
        self.eval()
        try:
            for rows in batches:
                ids, mask = tokens.padded(rows, self.pad_id, self.pads_left)
                out[rows] = self(ids.to(device), mask.to(device), bf16).cpu().numpy()
                advance(len(rows))
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

    @property
    def fingerprint(self) -> str:
        """Identifies what an embedding depends on besides its text: weights, configuration, tokenizer and settings.

        Reads every weight (a second or so per gigabyte), since training changes them.
        """
        around = {
            "pooling": self.settings.pooling,
            "activations": [type(projection.activation).__name__ for projection in self.projections],
            "normalize": self.settings.normalize,
            "max_length": self.settings.max_length,
            "query_prompt": self.settings.query_prompt,
            "document_prompt": self.settings.document_prompt,
            "bf16": uses_bf16(self.settings.precision, self.device),
        }
        return model_fingerprint(self, self.backbone, self.tokenizer, around)
