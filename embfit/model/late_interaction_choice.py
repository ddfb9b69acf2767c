"""The late-interaction models of the `model` group: a new one on any encoder, or one from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from tokenizers import AddedToken

from embfit.errors import ConfigError, UserError
from embfit.model.encoder import Encoder
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.folder import read_settings
from embfit.model.late_interaction import MARKER_PLACE, LateInteractionEncoder, expansion_id
from embfit.model.late_interaction_folder import (
    PUNCTUATION,
    LateInteractionFolder,
    holds_late_interaction,
    read_late_interaction,
)
from embfit.model.loading import lower_case, positions
from embfit.model.precision import by_pytorch, choose_device
from embfit.model.projection import Projection
from embfit.model.settings import Expansion, LateInteractionSettings
from embfit.records import Seed
from embfit.store import Store
from embfit.tokens import tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DIM = 128  # of a new projection
QUERY_MARKER, DOCUMENT_MARKER = "[Q] ", "[D] "
QUERY_LENGTH, DOCUMENT_LENGTH = 32, 256
Head = Literal["linear", "residual"]


@dataclass(frozen=True)
class LateInteraction(EncoderChoice):
    """A late-interaction model, loaded on demand; `EncoderChoice` documents the other parameters.

    A setting of None comes from the folder of a late-interaction model. Any other encoder gets a new projection with
    random weights, which needs training.

    Args:
        dim: the dimensions of a token's vector; 128 for a new projection.
        head: the form of a new projection: `linear`, one matrix (the default), or `residual`, which widens first
            (Chaffin et al. 2025, arXiv 2510.12327); a folder's own projection keeps its form.
        head_seed: the seed of a new projection's weights, and of new markers' vectors.
        query_marker: the token that marks a query, added to the vocabulary if missing; "" for none. A new model has
            `[Q] `.
        document_marker: the token that marks a document; a new model has `[D] `.
        query_length: the most tokens of a query, including special tokens and the marker; 32 for a new model.
        document_length: the most tokens of a document; 256 for a new model, or its positions if fewer.
        training_document_length: the most tokens of a document in training; None is `document_length`.
        expansion: `fixed`, as in a new model, fills queries up to `query_length` with mask tokens, which give vectors.
        attend_to_expansion: whether a query's own tokens attend to the mask tokens; in a new model they do not.
        skip: tokens of documents that give no vector: `punctuation`, as in a new model, `none`, or a list.

    Raises:
        ConfigError: settings contradict each other.
    """

    kind: ClassVar[str] = "late interaction"
    single: ClassVar[bool] = False

    dim: Annotated[int, Field(ge=8, multiple_of=8)] | None = None
    head: Head | None = None
    head_seed: Seed = 0
    query_marker: str | None = None
    document_marker: str | None = None
    query_length: Annotated[int, Field(ge=4)] | None = None
    document_length: Annotated[int, Field(ge=4)] | None = None
    training_document_length: Annotated[int, Field(ge=4)] | None = None
    expansion: Expansion | None = None
    attend_to_expansion: bool | None = None
    skip: Literal["punctuation", "none"] | Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.document_length is not None:
            _check_cap(self.training_document_length, self.document_length)
        if self.expansion == "none" and self.attend_to_expansion:
            raise ConfigError(
                "model.attend_to_expansion=true has nothing to attend to while model.expansion=none; set one of the two"
            )
        if self.expansion == "fixed" and self.attend_to_expansion is False:
            self._check_attention()

    def load(self, device: str = "auto", *further: str, store: Store | None = None) -> LateInteractionEncoder:
        """Load weights, tokenizer and projection; arguments as `EncoderChoice.load`.

        Raises:
            UserError: the model cannot be found, read, or is not what the configuration says.
            ConfigError: settings contradict each other, or the folder's.
        """
        weights, folder = self._weights()
        said = read_late_interaction(folder) if holds_late_interaction(folder) else None
        quiet = said is not None  # Stanford's projection is among the weights, and transformers warns of it
        backbone, tokenizer = weights.load(folder, quiet)
        if said is None:
            if read_settings(folder).lower_case:
                lower_case(tokenizer)
            markers = self._new_markers()
            _add_markers(backbone, tokenizer, markers, self.head_seed)
            head = _new_head(backbone, self.dim or DIM, self.head or "linear", self.head_seed)
        else:
            if said.lower_case:
                lower_case(tokenizer)
            markers = self._own_markers(said)
            _check_markers(backbone, tokenizer, markers, folder)
            head = self._own_head(said, backbone, folder)
        if any(markers):
            _check_first_token(tokenizer, str(self.path))
        settings = self._settings(said, markers, backbone)
        if settings.expansion == "fixed":
            _check_expansion(tokenizer, str(self.path))
            if not settings.attend_to_expansion:
                self._check_attention()
        encoder = LateInteractionEncoder(backbone, tokenizer, settings, head, str(folder), further)
        return self._by_back_end(encoder.to(choose_device(device)).eval(), store)

    def width(self) -> int:
        """Return the number of dimensions of a token's vector, without loading the backbone.

        Raises:
            UserError: the model's folder cannot be found or read.
        """
        weights, folder = self._weights()
        if not holds_late_interaction(folder):
            return self.dim or DIM
        head = read_late_interaction(folder).head
        return head[-1].linear.out_features if head else weights.hidden_size(folder)

    def check(self, encoder: Encoder) -> None:
        """Check that a loaded encoder has the parts to be trained, before any work is done.

        Raises:
            UserError: as `EncoderChoice.check`; or an adapter is to be saved without the vectors of new markers.
        """
        super().check(encoder)
        if self.lora.rank and not self.lora.merged and not holds_late_interaction(Path(encoder.source)):
            raise UserError(
                "model.lora.merged=false saves an adapter alone, whose base has no vectors of the markers; set "
                "model.lora.merged=true"
            )

    def _new_markers(self) -> tuple[str, str]:
        return (
            QUERY_MARKER if self.query_marker is None else self.query_marker,
            DOCUMENT_MARKER if self.document_marker is None else self.document_marker,
        )

    def _own_markers(self, said: LateInteractionFolder) -> tuple[str, str]:
        for name, asked, own in (
            ("query_marker", self.query_marker, said.query_marker),
            ("document_marker", self.document_marker, said.document_marker),
        ):
            if asked not in (None, own):
                raise ConfigError(
                    f"model.{name}={asked!r}: {self.path} was trained with {own!r}; set model.{name}=null"
                )
        return said.query_marker, said.document_marker

    def _own_head(self, said: LateInteractionFolder, backbone: PreTrainedModel, folder: Path) -> list[Projection]:
        """Return the folder's projection, after checking it against the backbone and the configuration."""
        width = int(backbone.config.get_text_config().hidden_size)
        for layer in said.head:
            if layer.linear.in_features != width:
                raise UserError(
                    f"{folder}: a layer of its projection reads {layer.linear.in_features} dimensions, and what comes "
                    f"before it gives {width}"
                )
            if not all(weight.isfinite().all() for weight in layer.parameters()):
                raise UserError(f"{folder}: a weight of its projection is not finite; it cannot have been saved well")
            width = layer.linear.out_features
        if self.dim not in (None, width):
            raise ConfigError(
                f"model.dim={self.dim}: {self.path} has vectors of {width} dimensions; set model.dim=null"
            )
        kind = "residual" if any(layer.use_residual for layer in said.head) else "linear"
        if self.head not in (None, kind):
            raise ConfigError(f"model.head={self.head}: {self.path} has a {kind} projection; set model.head=null")
        return list(said.head)

    def _settings(
        self, said: LateInteractionFolder | None, markers: tuple[str, str], backbone: PreTrainedModel
    ) -> LateInteractionSettings:
        limit = positions(backbone)

        def length(name: str, asked: int | None, own: int | None, default: int) -> int:
            if limit is not None and asked is not None and asked > limit:
                raise ConfigError(f"model.{name}={asked} exceeds the {limit} positions of {self.path}; lower it")
            fits = None if own is None else min(own, limit or own)
            return self._choose(name, asked, fits, min(default, limit or default))

        own_query, own_document = (None, None) if said is None else (said.query_length, said.document_length)
        document_length = length("document_length", self.document_length, own_document, DOCUMENT_LENGTH)
        _check_cap(self.training_document_length, document_length)
        return LateInteractionSettings(
            query_marker=markers[0],
            document_marker=markers[1],
            query_length=length("query_length", self.query_length, own_query, QUERY_LENGTH),
            document_length=document_length,
            training_document_length=self.training_document_length or document_length,
            expansion=self._choose("expansion", self.expansion, None if said is None else said.expansion, "fixed"),
            attend_to_expansion=self._choose(
                "attend_to_expansion",
                self.attend_to_expansion,
                None if said is None else said.attend_to_expansion,
                False,
            ),
            skip=self._choose("skip", self._skip(), None if said is None else said.skip, PUNCTUATION),
            precision=by_pytorch(self.precision),
            attention=self.attention,
        )

    def _skip(self) -> tuple[str, ...] | None:
        named = {"punctuation": PUNCTUATION, "none": ()}
        return named[self.skip] if isinstance(self.skip, str) else None if self.skip is None else tuple(self.skip)

    def _check_attention(self) -> None:
        if self.attention == "flash_attention_2":
            raise ConfigError(
                "model.attention=flash_attention_2 computes nothing for tokens that are not attended to, such as a "
                "query's expansion; set model.attention=sdpa, model.expansion=none or model.attend_to_expansion=true"
            )


def _check_cap(training_length: int | None, length: int) -> None:
    if training_length is not None and training_length > length:
        raise ConfigError(
            f"model.training_document_length={training_length} exceeds model.document_length={length}; lower it"
        )


def _add_markers(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, markers: tuple[str, str], seed: int
) -> None:
    """Add missing markers to a plain encoder's vocabulary, with random vectors.

    Raises:
        UserError: a marker is a word, which sentence-transformers would join to the first word of a text.
    """
    known, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    with tokenizer_lock(tokenizer):
        for marker in markers:
            if marker in known and marker not in added and tokenizer.tokenize(marker) == [marker]:
                raise UserError(
                    f"the marker {marker!r} is a word of the vocabulary; name a token that no text has, such as '[Q] ' "
                    "and '[D] ' (model.query_marker, model.document_marker)"
                )
        new = [marker for marker in dict.fromkeys(markers) if marker and marker not in known]
        tokenizer.add_tokens(
            [AddedToken(marker, normalized=False) for marker in new]
        )  # added tokens are not converted to lower case
    rows = _token_rows(backbone)
    if len(tokenizer) > rows:  # some models have spare rows
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def _token_rows(backbone: PreTrainedModel) -> int:
    """Return the number of rows of the token embeddings."""
    table = backbone.get_input_embeddings().weight
    return len(table)  # type: ignore[arg-type]  # a tensor, which the stub of modules does not know


def _new_head(backbone: PreTrainedModel, dim: int, kind: Head, seed: int) -> list[Projection]:
    """Return a projection with random weights."""
    width = int(backbone.config.get_text_config().hidden_size)
    shapes = [(width, dim)] if kind == "linear" else [(width, 2 * width), (2 * width, width), (width, dim)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return [
            Projection(
                {
                    "in_features": read,
                    "out_features": given,
                    "bias": False,
                    "activation_function": "Identity",
                    "use_residual": kind == "residual" and given != dim,
                }
            )
            for read, given in shapes
        ]


def _check_markers(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, markers: tuple[str, str], folder: Path
) -> None:
    vocabulary, rows = tokenizer.get_vocab(), _token_rows(backbone)
    for marker in markers:
        if marker and vocabulary.get(marker, rows) >= rows:
            raise UserError(
                f"{folder}: its marker {marker!r} is no token with a vector of its own, so nothing is known of how the "
                "model was trained to read texts"
            )


def _check_first_token(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Refuse a tokenizer that does not put exactly one token before a text, after which the marker is inserted."""
    with tokenizer_lock(tokenizer):
        in_front = list(tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]).index(0)
    if in_front != MARKER_PLACE:
        raise UserError(
            f"{path}: its tokenizer puts {in_front} tokens in front of a text, and a marker stands behind one; "
            'set model.query_marker="" and model.document_marker=""'
        )


def _check_expansion(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    if expansion_id(tokenizer) is None:
        raise UserError(
            f"{path}: its tokenizer has neither a mask nor an end token to fill queries with; set model.expansion=none"
        )
    if tokenizer.padding_side == "left":
        raise UserError(
            f"{path}: its texts are padded on the left, and expansion is on the right; set model.expansion=none"
        )
