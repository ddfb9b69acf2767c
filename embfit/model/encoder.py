"""The encoder: texts in, vectors out; one engine for training, mining, evaluation and search.

There are two kinds: a bi-encoder (`embfit.model.bi_encoder`) gives one vector for each text, and a late-interaction
encoder (`embfit.model.late_interaction`) one for each kept token. Each kind implements how it reads texts (`read`), how
many vectors they give (`vector_counts`) and how these are computed (`forward`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from embfit.device_transfer import to_device
from embfit.errors import UserError
from embfit.model.back_ends.graph import BackEnd, Graph, GraphPrecision
from embfit.model.compiled import compiled_hidden_states, hidden_states
from embfit.model.fingerprint import model_fingerprint
from embfit.model.layers import evaluating, without_cache
from embfit.model.precision import autocast, default_token_budget, uses_bf16
from embfit.model.projection import Projection, UnitLength
from embfit.model.settings import EncoderSettings
from embfit.progress import Advance, progress
from embfit.ragged import offsets_of, places_of
from embfit.tokens import Tokens, plan_batches
from embfit.tokens import concatenate as concatenate_tokens
from embfit.vectors import Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Kind: TypeAlias = Literal["query", "document"]


class Encoder(nn.Module, ABC):
    """A transformers model that embeds texts.

    Args:
        backbone: gives `last_hidden_state`.
        tokenizer: a fast tokenizer of the same model.
        settings: how text is read, and the number format of the backbone.
        head: layers after the backbone, in order.
        source: the origin of the weights, for records and messages.
        further_devices: devices of further processes that share the encoding of many texts with this one.
    """

    single = True  # whether each text has one vector
    settings: EncoderSettings

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: EncoderSettings,
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
        self.backbone_options = without_cache(backbone)
        self.graph: Graph | None = None  # a converted graph that computes the hidden states instead of the backbone

    @abstractmethod
    def length(self, kind: Kind) -> int:
        """Return the most tokens of a query or of a document, including special tokens."""

    def training_length(self, kind: Kind) -> int:
        """Return the most tokens in training."""
        return self.length(kind)

    @abstractmethod
    def length_setting(self, kind: Kind) -> str:
        """Return the key of the setting for `length`, for messages."""

    @property
    @abstractmethod
    def normalizes(self) -> bool:
        """Whether vectors have unit length."""

    def prompt(self, kind: Kind) -> str:
        """Return the prompt of queries or documents."""
        return ""

    @abstractmethod
    def reading(self, kind: Kind, length: int) -> Mapping[str, object]:
        """Return everything that the tokens of a text depend on besides the tokenizer, as JSON values."""

    @abstractmethod
    def computing(self) -> Mapping[str, object]:
        """Return everything that vectors depend on besides tokens, weights and precision, as JSON values."""

    def adapting(self, kind: Kind) -> Mapping[str, object]:
        """Return what only the vectors of queries, or only those of documents, depend on, as JSON values."""
        return {}

    @abstractmethod
    def read(self, texts: Iterable[str], kind: Kind, length: int) -> Iterator[Tokens]:
        """Tokenise queries or documents, a few thousand at a time.

        Args:
            texts: the texts, which are read once.
            kind: whether they are queries or documents.
            length: the most tokens of each, including special tokens.
        """

    def vector_counts(self, tokens: Tokens) -> np.ndarray | None:
        """Return how many vectors each text has ([N] int64), from its tokens; None means one each."""
        return None

    @abstractmethod
    def forward(self, input_ids: Tensor, roles: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids, on the device that they are on.

        Shapes:
            input_ids and roles [N, L], as `Tokens.padded` has them → [V, D] float32, the vectors of all texts in order.
            Roles stay on the CPU, where reading them costs nothing; on a GPU the host would have to wait.
        """

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor, bf16: bool) -> Tensor:
        """Return the backbone's last hidden states, [N, L] → [N, L, H]; all that follows them is fp32."""
        if self.graph is not None:
            return self.graph.hidden_states(input_ids, attention_mask)
        # encoding for storage is not compiled: its results must not depend on training settings
        run = compiled_hidden_states if self.compiled and not torch.is_inference_mode_enabled() else hidden_states
        with autocast(input_ids.device, bf16):
            return run(self.backbone, input_ids, attention_mask, self.backbone_options)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that share the encoding of many texts, this encoder's own first."""
        return str(self.device), *self.further_devices

    @property
    def max_length(self) -> int:
        """The most tokens of any text, query or document."""
        return max(self.length("query"), self.length("document"))

    @property
    def width(self) -> int:
        """The number of dimensions of a vector."""
        return self._width

    @property
    def compiled(self) -> bool:
        """Whether training runs the backbone through `torch.compile`."""
        return self.settings.compile

    def tokenize(self, texts: Iterable[str], kind: Kind) -> Tokens:
        """Tokenise queries or documents."""
        return concatenate_tokens(list(self.tokenize_blocks(texts, kind)))

    def tokenize_blocks(self, texts: Iterable[str], kind: Kind, length: int | None = None) -> Iterator[Tokens]:
        """Tokenise like `tokenize`, a few thousand texts at a time; `length` overrides the most tokens."""
        return self.read(texts, kind, length or self.length(kind))

    def embed(self, texts: Iterable[str], kind: Kind) -> Vectors[np.ndarray]:
        """Embed texts and return their vectors (float32), in the order given.

        Texts are sorted by length, so there is little padding; the next ones are tokenised while these are computed.
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
            label: the label of the progress; None shows none.
        """
        starts = self.vector_starts(tokens)
        rows = np.empty((len(tokens) if starts is None else int(starts[-1]), self.width), np.float32)
        vectors = Vectors(rows, starts)
        with progress(label, len(tokens), "texts") as advance:
            self.encode_batches(tokens, self.plan(tokens), vectors, advance)
        return vectors

    def vector_starts(self, tokens: Tokens) -> np.ndarray | None:
        """Return where each text's vectors begin ([N + 1] int64); None means one each."""
        counts = self.vector_counts(tokens)
        return None if counts is None else offsets_of(counts)

    def plan(self, tokens: Tokens, device: torch.device | None = None) -> list[np.ndarray]:
        """Return the batches, as row numbers, in which texts are encoded: the same for the same texts and device.

        Args:
            tokens: the texts.
            device: the device; None is that of the encoder.
        """
        return plan_batches(tokens.lengths, default_token_budget(device or self.device))

    @property
    def token_budget(self) -> int:
        """The padded tokens of a batch on the encoder's device."""
        return default_token_budget(self.device)

    @torch.inference_mode()
    def encode_batches(
        self, tokens: Tokens, batches: Iterable[np.ndarray], out: Vectors[np.ndarray], advance: Advance
    ) -> None:
        """Embed some of the batches of `plan`.

        Args:
            tokens: N texts, with their prompts.
            batches: numbers of texts, batch by batch.
            out: the array for the vectors of all N texts, possibly memory-mapped, which is filled in order of length.
            advance: called with the number of texts after each batch.
        """
        device, bf16 = self.device, self.computes_in == "bf16"
        with evaluating(self):
            for texts in batches:
                ids, roles = tokens.padded(texts, self.pad_id, self.pads_left)
                places = texts if out.starts is None else places_of(out.starts, texts)
                out.rows[places] = self(to_device(ids, device), roles, bf16).cpu().numpy()
                advance(len(texts))

    @property
    def back_end(self) -> BackEnd:
        """The back end that computes the hidden states."""
        return "torch" if self.graph is None else self.graph.back_end

    @property
    def computes_in(self) -> GraphPrecision:
        """The number format in which hidden states are computed."""
        if self.graph is not None:
            return self.graph.precision
        return "bf16" if uses_bf16(self.settings.precision, self.device) else "fp32"

    @property
    def pad_id(self) -> int:
        """The padding token's id; any id if the tokenizer has none, because padding is masked."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def pads_left(self) -> bool:
        """Whether the tokenizer asks for padding on the left."""
        return bool(self.tokenizer.padding_side == "left")

    def fingerprint(self, kind: Kind) -> str:
        """Identify everything that the vector of a query, or of a document, depends on besides its text.

        These are the weights, the configuration, the tokenizer, that side's settings, the back end and its precision.
        Weights are read each time, except within `embfit.model.frozen`.
        """
        around = {
            "back_end": self.back_end,
            "head": [layer.description for layer in self.head],
            "bf16": self.computes_in == "bf16",
            **({} if self.graph is None or self.graph.digest is None else {"graph": self.graph.digest}),
            **self.computing(),
            **self.reading(kind, self.length(kind)),
            **self.adapting(kind),
        }
        return model_fingerprint(self, self.backbone, self.tokenizer, around)


def concatenate(parts: Sequence[Vectors[np.ndarray]]) -> Vectors[np.ndarray]:
    """Join the vectors of several groups of texts, one group after another."""
    rows = np.concatenate([part.rows for part in parts])
    if parts[0].starts is None:
        return Vectors(rows)
    return Vectors(rows, offsets_of(np.concatenate([part.counts for part in parts])))
