"""The `model` group: which pretrained encoder, and how it reads text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from pydantic import Field

from embfit.errors import UserError
from embfit.hints import Location
from embfit.model.encoder import Encoder
from embfit.model.folder import FolderSettings, holds_cross_encoder, read_head, read_settings
from embfit.model.last_token import append_end_token
from embfit.model.loading import DEFAULT_LENGTH, Weights, lower_case, positions
from embfit.model.lora import NO_ADAPTER, LoRA
from embfit.model.pooling import Pooling
from embfit.model.precision import Precision, choose_device
from embfit.model.settings import Attention, Settings
from embfit.model.trainable import TrainedParts, check_trainable, trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder, loaded when needed. What is None comes from the model's own folder.

    Args:
        path: a folder, or a name on the Hub.
        revision: the branch, tag or commit on the Hub.
        packages: name on the Hub → Python package that carries its files, used when installed.
        sha256: the digest that `model.safetensors` must have.
        pooling: how token embeddings become one vector.
        query_prompt: what is put in front of each query.
        document_prompt: what is put in front of each document.
        max_length: how many tokens are read of a text; the rest is cut off, counted and reported.
        normalize: whether vectors get unit length.
        attention: which of transformers' implementations computes attention; auto is SDPA, and plain products where a
            CPU trains short texts.
        dtype: what the weights are kept in; training wants float32.
        precision: what the backbone computes in; auto is bf16 where the hardware multiplies it.
        trust_remote_code: whether Python code that comes with the model is run.
        lora: how an adapter is trained instead of the weights.
        freeze_embeddings: whether the token embeddings stay as they are.
        freeze_layers: how many layers, from the bottom, stay as they are; with any the embeddings do too.
        compile: whether training runs through `torch.compile`.
    """

    path: Annotated[str | None, Location(required=True)]
    revision: str | None = None
    packages: Mapping[str, str] | None = None
    sha256: str | None = None
    pooling: Pooling | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None
    normalize: bool | None = None
    attention: Attention = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    precision: Precision = "auto"
    trust_remote_code: bool = False
    lora: LoRA = NO_ADAPTER
    freeze_embeddings: bool = False
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    compile: bool = False

    def load(self, device: str = "auto", *further: str) -> Encoder:
        """Load weights and tokenizer.

        Args:
            device: what the weights are put on; `auto` is a GPU where there is one.
            further: devices of further processes that share the encoding of many texts with this one.

        Raises:
            UserError: the model cannot be found, read, or is not what the configuration says.
        """
        if self.path is None:
            raise UserError("model.path is not set; give a folder or a name on the Hub: model.path=FOLDER_OR_NAME")
        weights = Weights(
            self.path,
            self.revision,
            self.packages,
            self.sha256,
            getattr(torch, self.dtype),
            self.attention,
            self.trust_remote_code,
        )
        folder = weights.find()
        if holds_cross_encoder(folder):
            raise UserError(
                f"model.path={self.path} is a cross-encoder, which scores pairs and embeds no text; "
                "miner.model, evaluator.systems.reranked.path and model=cross-encoder take one"
            )
        said = read_settings(folder)
        backbone, tokenizer = weights.load(folder)
        settings = self._settings(said, backbone)
        if said.lower_case:
            lower_case(tokenizer)
        if settings.pooling == "lasttoken":
            append_end_token(tokenizer, self.path)
        encoder = Encoder(backbone, tokenizer, settings, read_head(folder, said), str(folder), further)
        return encoder.to(choose_device(device)).eval()

    def another(self, path: str, revision: str | None = None) -> Pretrained:
        """Return another model as its own folder says that it is, computed with this one's precision and attention.

        Pooling, prompts, length and unit length are the other model's: with this one's it would give other vectors.

        Args:
            path: a folder, or a name on the Hub; what a training of this model has saved is another model.
            revision: the branch, tag or commit on the Hub.
        """
        return replace(
            self,
            path=path,
            revision=revision,
            sha256=None,
            pooling=None,
            query_prompt=None,
            document_prompt=None,
            max_length=None,
            normalize=None,
        )

    def check(self, encoder: Encoder) -> None:
        """Refuse to train of a loaded encoder what it has not, before there is any work.

        Raises:
            UserError: it has no such layers or modules, or peft is not installed.
        """
        check_trainable(encoder, self._trained_parts(encoder))

    def trainable(self, encoder: Encoder) -> AbstractContextManager[None]:
        """Inside this context, only what the configuration has trained of a loaded encoder requires gradients.

        Behind it the encoder is what will be saved, its adapter merged or beside the base.
        """
        return trainable(encoder, self._trained_parts(encoder))

    def _trained_parts(self, encoder: Encoder) -> TrainedParts:
        folder, revision = Path(encoder.source).absolute(), None
        base = str(folder)
        if folder.is_relative_to(Path(HF_HUB_CACHE).absolute()):  # found again on any machine
            base, revision = str(self.path), self.revision
        return TrainedParts(self.lora, self.freeze_embeddings, self.freeze_layers, self.compile, base, revision)

    def _settings(self, said: FolderSettings, backbone: PreTrainedModel) -> Settings:
        limit = positions(backbone)
        if limit is not None and self.max_length is not None and self.max_length > limit:
            raise UserError(
                f"model.max_length={self.max_length} exceeds the {limit} positions of {self.path}; "
                "lower model.max_length"
            )
        own = None if said.max_length is None else min(said.max_length, limit or said.max_length)
        length = self._choose("max_length", self.max_length, own, min(limit or DEFAULT_LENGTH, DEFAULT_LENGTH))
        return Settings(
            pooling=self._choose("pooling", self.pooling, said.pooling, "mean"),
            normalize=self._choose("normalize", self.normalize, said.normalize, True),
            max_length=length,
            query_prompt=self._choose("query_prompt", self.query_prompt, said.query_prompt, ""),
            document_prompt=self._choose("document_prompt", self.document_prompt, said.document_prompt, ""),
            precision=self.precision,
            attention=self.attention,
        )

    def _choose(self, name: str, asked: Value | None, said: Value | None, default: Value) -> Value:
        """Take what the configuration asks for, else what the folder says, else the default."""
        if asked is None:
            return default if said is None else said
        if said is not None and asked != said:
            log.warning(
                "model.%s=%r contradicts the model's own folder, which says %r; using %r", name, asked, said, asked
            )
        return asked
