"""The settings that all encoders of the `model` group share: the source of the weights, and which are trained."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar, cast

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from pydantic import Field

from embfit.errors import ConfigError, UserError
from embfit.model.back_ends.choice import BackEndChoice, choose_back_end
from embfit.model.encoder import Encoder
from embfit.model.folder import holds_cross_encoder
from embfit.model.loading import Weights
from embfit.model.lora import NO_ADAPTER, LoRA
from embfit.model.precision import EncoderPrecision, by_pytorch
from embfit.model.query_adapter import NO_QUERY_ADAPTER, QueryAdapterSettings
from embfit.model.settings import Attention
from embfit.model.trainable import TrainedParts, check_trainable, trainable
from embfit.store import Store
from embfit.type_hints import Location

log = logging.getLogger(__name__)
Value = TypeVar("Value")
TRAINED = ("lora", "freeze_embeddings", "freeze_layers", "compile")  # fields about training
Chosen = TypeVar("Chosen", bound=Encoder)


@dataclass(frozen=True)
class EncoderChoice(ABC):
    """A pretrained encoder, loaded on demand; `Pretrained` and `LateInteraction` are its subclasses.

    Args:
        path: a folder, or a name on the Hub.
        revision: the branch, tag or commit on the Hub.
        packages: name on the Hub → Python package that carries its files, used when installed.
        sha256: the required digest of `model.safetensors`.
        attention: transformers' implementation of attention; auto is SDPA, and plain attention for training on short
            texts on a CPU.
        dtype: the number format of the weights; training needs float32.
        precision: the number format in which the backbone computes; auto is bf16 if the hardware supports it. int8
            needs OpenVINO or ONNX Runtime, and a folder from `task=quantize`.
        backend: the library that computes: PyTorch, ONNX Runtime or OpenVINO; auto is the fastest installed one.
        trust_remote_code: whether to run Python code that comes with the model.
        lora: the settings of an adapter that is trained instead of the weights.
        freeze_embeddings: whether to freeze the token embeddings.
        freeze_layers: how many layers, from the bottom, to freeze; any number freezes the embeddings as well.
        compile: whether training runs through `torch.compile`.

    Raises:
        ConfigError: int8 is requested for PyTorch or for `auto`.
    """

    kind: ClassVar[str] = "encoder"
    single: ClassVar[bool] = True  # whether each text has one vector
    trained_besides: ClassVar[tuple[str, ...]] = ()  # a subclass's further fields about training

    path: Annotated[str | None, Location(required=True)]
    revision: str | None = None
    packages: Mapping[str, str] | None = None
    sha256: str | None = None
    attention: Attention = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    precision: EncoderPrecision = "auto"
    backend: BackEndChoice = "torch"
    trust_remote_code: bool = False
    lora: LoRA = NO_ADAPTER
    freeze_embeddings: bool = False
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision == "int8" and self.backend not in ("openvino", "onnx"):
            raise ConfigError(
                f"model.backend={self.backend} does not compute in model.precision=int8; set model.backend=openvino, "
                "or onnx"
            )

    def trained_like(self, other: EncoderChoice) -> Self:
        """Return this encoder with the training settings of another one of its kind."""
        return replace(self, **{name: getattr(other, name) for name in (*TRAINED, *self.trained_besides)})

    @property
    def by_pytorch(self) -> Self:
        """This encoder, with the back end PyTorch."""
        return replace(self, backend="torch", precision=by_pytorch(self.precision))

    @property
    def adapts_queries(self) -> QueryAdapterSettings:
        """The settings of a query adapter that is trained instead of the weights; rank None trains the weights."""
        return NO_QUERY_ADAPTER

    @abstractmethod
    def load(self, device: str = "auto", *further: str, store: Store | None = None) -> Encoder:
        """Load weights and tokenizer.

        Args:
            device: the device of the weights; `auto` is a GPU if there is one.
            further: devices of further processes that share the encoding of many texts with this one.
            store: keeps converted models; None converts only for this encoder.

        Raises:
            UserError: the model cannot be found, read, converted, or is not what the configuration says.
            ConfigError: the back end is not installed, or does not support this precision.
        """

    @abstractmethod
    def width(self) -> int:
        """Return the number of dimensions of a vector, without loading the backbone.

        Raises:
            UserError: the model's folder cannot be found or read.
        """

    def check(self, encoder: Encoder) -> None:
        """Check that a loaded encoder has the parts to be trained, before any work is done.

        Raises:
            UserError: a layer or module is missing, or peft is not installed.
        """
        check_trainable(encoder, self._trained_parts(encoder))

    def trainable(self, encoder: Encoder) -> AbstractContextManager[None]:
        """Enter a context in which only the configured parts of a loaded encoder require gradients.

        Afterwards the encoder is ready to be saved, with its adapter merged or beside the base.
        """
        return trainable(encoder, self._trained_parts(encoder))

    def _by_back_end(self, encoder: Chosen, store: Store | None) -> Chosen:
        """Switch a loaded encoder to the configured back end and return it."""
        choose_back_end(encoder, self.backend, self.precision, store)
        return encoder

    def _weights(self) -> tuple[Weights, Path]:
        """Return the settings for loading the weights, and their local folder.

        Raises:
            UserError: no path is configured, it does not exist, or it is a cross-encoder.
        """
        weights = self._named()
        folder = weights.find()
        if holds_cross_encoder(folder):
            raise UserError(
                f"model.path={self.path} is a cross-encoder, which scores pairs and embeds no text; "
                "miner.model, evaluator.systems.reranked.path and model=cross-encoder take one"
            )
        return weights, folder

    def _named(self) -> Weights:
        """Return the settings for loading the weights.

        Raises:
            UserError: no path is configured.
        """
        if self.path is None:
            raise UserError("model.path is not set; give a folder or a name on the Hub: model.path=FOLDER_OR_NAME")
        return Weights(
            self.path,
            self.revision,
            self.packages,
            self.sha256,
            getattr(torch, self.dtype),
            self.attention,
            self.trust_remote_code,
        )

    def _trained_parts(self, encoder: Encoder) -> TrainedParts:
        folder, revision = Path(encoder.source).absolute(), None
        base = str(folder)
        if folder.is_relative_to(Path(HF_HUB_CACHE).absolute()):  # found again on any machine
            base, revision = str(self.path), self.revision
        return TrainedParts(self.lora, self.freeze_embeddings, self.freeze_layers, self.compile, base, revision)

    def _choose(self, name: str, asked: Value | None, said: Value | None, default: Value) -> Value:
        """Return the configured value, else the folder's, else the default.

        A value that contradicts the folder causes a warning; a shorter length is only logged.
        """
        if asked is None:
            return default if said is None else said
        if said is not None and asked != said:
            if name.endswith("length") and cast(int, asked) < cast(int, said):
                log.info("model.%s=%r: the model's own folder says %r", name, asked, said)
            else:
                log.warning(
                    "model.%s=%r contradicts the model's own folder, which says %r; using %r", name, asked, said, asked
                )
        return asked
