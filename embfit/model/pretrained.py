"""The `model` group: which pretrained encoder, and how it reads text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from embfit.errors import UserError, first_line
from embfit.model.encoder import Encoder
from embfit.model.folder import Attention, FolderSettings, Settings, holds_ranker, read_projections, read_settings
from embfit.model.last_token import append_end_token
from embfit.model.lora import NO_ADAPTER, LoRA, load_adapter, read_base
from embfit.model.pooling import Pooling
from embfit.model.precision import Precision, choose_device
from embfit.model.source import check_digest, find_base, find_model
from embfit.model.trainable import check_trainable, trainable

log = logging.getLogger(__name__)
Value = TypeVar("Value")

DEFAULT_LENGTH = 512  # where neither the configuration nor the model says


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder, loaded when needed. What is None comes from the model's own folder.

    Args:
        path: a folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub.
        packages: name on the Hub → Python package that carries its files, used when installed.
        sha256: digest that `model.safetensors` must have.
        pooling: how token embeddings become one vector.
        query_prompt: put in front of each query.
        document_prompt: put in front of each document.
        max_length: tokens read of a text; the rest is cut off, counted and reported.
        normalize: give vectors unit length.
        attention: transformers' implementation; auto is SDPA, and plain products where a CPU trains short texts.
        dtype: of the weights; training wants float32.
        precision: of the computation; auto is bf16 where the hardware multiplies it.
        trust_remote_code: run Python code that comes with the model.
        lora: train an adapter instead of the weights.
        freeze_embeddings: leave the token embeddings as they are.
        freeze_layers: leave that many layers, from the bottom, and the embeddings as they are.
        compile: train through `torch.compile`.
    """

    path: str | None
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

    def load(self, device: str = "auto", *beside: str) -> Encoder:
        """Load weights and tokenizer.

        Args:
            device: that the encoder is put on.
            beside: devices of further processes that share the encoding of many texts with it.

        Raises:
            UserError: the model cannot be found, read, or is not what the configuration says.
        """
        if self.path is None:
            raise UserError("model.path is not set; give a folder or a name on the Hub: model.path=FOLDER_OR_NAME")
        folder = find_model(self.path, self.revision, self.packages)
        if self.sha256 is not None:
            check_digest(folder, self.sha256)
        if holds_ranker(folder):
            raise UserError(
                f"model.path={self.path} is a cross-encoder, which scores pairs and embeds no text; "
                "miner.model, evaluator.systems.reranked.path and model=cross-encoder take one"
            )
        said = read_settings(folder)
        backbone, tokenizer = self._read(folder)
        settings = self._settings(said, backbone)
        if settings.pooling == "lasttoken":
            append_end_token(tokenizer, self.path)
        encoder = Encoder(backbone, tokenizer, settings, read_projections(folder, said), str(folder), beside)
        return encoder.to(choose_device(device)).eval()

    def check(self, encoder: Encoder) -> None:
        """Refuse to train of a loaded encoder what it has not, before there is any work.

        Raises:
            UserError: it has no such layers or modules, or peft is not installed.
        """
        check_trainable(encoder, self)

    def trainable(self, encoder: Encoder) -> AbstractContextManager[None]:
        """Inside this context, only what the configuration has trained of a loaded encoder requires gradients.

        Behind it the encoder is what will be saved, its adapter merged or beside the base.
        """
        return trainable(encoder, self)

    def _read(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        base = read_base(folder)
        weights = folder if base is None else find_base(folder, *base)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers does not type it
        try:
            backbone = AutoModel.from_pretrained(
                weights,
                dtype=getattr(torch, self.dtype),  # transformers 5 otherwise takes the checkpoint's
                attn_implementation="sdpa" if self.attention == "auto" else self.attention,
                trust_remote_code=self.trust_remote_code,
            )
            if base is not None:
                load_adapter(backbone, folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            said = first_line(error)
            raise UserError(f"model.path={self.path}: transformers cannot load {folder}: {said}") from error
        if not tokenizer.is_fast:
            raise UserError(
                f"model.path={self.path}: its tokenizer has no fast (tokenizer.json) form, which embfit needs"
            )
        return backbone, tokenizer

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


def positions(backbone: PreTrainedModel) -> int | None:
    """Return the longest input the position embeddings allow, if they limit it."""
    config: Any = backbone.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa's family counts positions from the padding id on, so the first ones are never used
    offset = (
        config.pad_token_id + 1
        if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet")
        else 0
    )
    return int(positions) - int(offset)
