"""What all encoders of the `model` group have in common: where the weights are, and what of them is trained."""

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
TRAINED = ("lora", "freeze_embeddings", "freeze_layers", "compile")  # fields that say what is trained, and how
Chosen = TypeVar("Chosen", bound=Encoder)


@dataclass(frozen=True)
class EncoderChoice(ABC):
    """A pretrained encoder, loaded when needed; `Pretrained` and `LateInteraction` are its kinds.

    Args:
        path: a folder, or a name on the Hub.
        revision: the branch, tag or commit on the Hub.
        packages: name on the Hub → Python package that carries its files, used when installed.
        sha256: the digest that `model.safetensors` must have.
        attention: which of transformers' implementations computes attention; auto is SDPA, and plain products where a
            CPU trains short texts.
        dtype: what the weights are kept in; training wants float32.
        precision: what the backbone computes in; auto is bf16 where the hardware multiplies it. int8 is ONNX Runtime's,
            for a folder that `task=quantize` made.
        backend: what computes texts' vectors: PyTorch, ONNX Runtime or OpenVINO; auto is the fastest that is there.
        trust_remote_code: whether Python code that comes with the model is run.
        lora: how an adapter is trained instead of the weights.
        freeze_embeddings: whether the token embeddings stay as they are.
        freeze_layers: how many layers, from the bottom, stay as they are; with any the embeddings do too.
        compile: whether training runs through `torch.compile`.

    Raises:
        ConfigError: int8 is asked of another back end than ONNX Runtime.
    """

    kind: ClassVar[str] = "encoder"
    trained_besides: ClassVar[tuple[str, ...]] = ()  # further fields of a kind that say so

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
        if self.precision == "int8" and self.backend != "onnx":
            raise ConfigError(
                f"model.precision=int8 is ONNX Runtime's, and model.backend={self.backend}; set model.backend=onnx"
            )

    def trained_like(self, other: EncoderChoice) -> Self:
        """Return this encoder, to be trained as another of its kind is: the same parts, in the same way."""
        return replace(self, **{name: getattr(other, name) for name in (*TRAINED, *self.trained_besides)})

    @property
    def by_pytorch(self) -> Self:
        """This encoder, computed by PyTorch."""
        return replace(self, backend="torch", precision=by_pytorch(self.precision))

    @property
    def adapts_queries(self) -> QueryAdapterSettings:
        """How a map of queries' vectors is trained in the place of the weights; with rank None, the weights are."""
        return NO_QUERY_ADAPTER

    @abstractmethod
    def load(self, device: str = "auto", *further: str, store: Store | None = None) -> Encoder:
        """Load weights and tokenizer.

        Args:
            device: what the weights are put on; `auto` is a GPU where there is one.
            further: devices of further processes that share the encoding of many texts with this one.
            store: keeps what the back end is converted to; None converts for this encoder alone.

        Raises:
            UserError: the model cannot be found, read, converted, or is not what the configuration says.
            ConfigError: the back end is not installed, or does not compute in this precision.
        """

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

    def _by_back_end(self, encoder: Chosen, store: Store | None) -> Chosen:
        """Return a loaded encoder, which computes by the back end from then on."""
        choose_back_end(encoder, self.backend, self.precision, store)
        return encoder

    def _weights(self) -> tuple[Weights, Path]:
        """Return what says how the weights are loaded, and the local folder that has them.

        Raises:
            UserError: none is named, it is not there, or it is a cross-encoder's.
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
        """Return what says how the weights are loaded.

        Raises:
            UserError: none is named.
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
        """Take what the configuration asks for, else what the folder says, else the default.

        What contradicts the folder is warned of; reading fewer tokens is a choice, and only told.
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
