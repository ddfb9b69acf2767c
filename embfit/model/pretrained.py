"""The bi-encoders of the `model` group: the pretrained model, and how it reads text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from embfit.errors import ConfigError, UserError
from embfit.model.bi_encoder import BiEncoder
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.folder import FolderSettings, read_head, read_query_adapter, read_settings
from embfit.model.last_token import append_end_token
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.model.loading import DEFAULT_LENGTH, lower_case, positions
from embfit.model.location import find_here
from embfit.model.pooling import Pooling
from embfit.model.precision import by_pytorch, choose_device
from embfit.model.projection import Projection
from embfit.model.query_adapter import NO_QUERY_ADAPTER, QueryAdapterSettings
from embfit.model.settings import Settings
from embfit.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Pretrained(EncoderChoice):
    """A pretrained bi-encoder, loaded on demand. Settings of None come from the model's own folder.

    `EncoderChoice` documents the other parameters.

    Args:
        pooling: how token embeddings become one vector.
        query_prompt: the text that is put before each query.
        document_prompt: the text that is put before each document.
        max_length: the most tokens of a text; the rest is cut off, counted and reported.
        normalize: whether vectors get unit length.
        query_adapter: the settings of a query adapter that is trained instead of the weights.

    Raises:
        ConfigError: both LoRA and a query adapter are to be trained, or int8 is requested for PyTorch or for `auto`.
    """

    trained_besides: ClassVar[tuple[str, ...]] = ("query_adapter",)

    pooling: Pooling | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None
    normalize: bool | None = None
    query_adapter: QueryAdapterSettings = NO_QUERY_ADAPTER

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query_adapter.rank and self.lora.rank:
            raise ConfigError(
                f"model.query_adapter.rank={self.query_adapter.rank} leaves the weights as they are, and "
                f"model.lora.rank={self.lora.rank} trains them; set one of the two to null"
            )

    @property
    def adapts_queries(self) -> QueryAdapterSettings:
        """The settings of a query adapter that is trained instead of the weights."""
        return self.query_adapter

    def load(self, device: str = "auto", *further: str, store: Store | None = None) -> BiEncoder:
        """Load weights and tokenizer; arguments as `EncoderChoice.load`.

        Raises:
            UserError: the model cannot be found, read, or is not what the configuration says.
        """
        weights, folder = self._weights()
        if holds_late_interaction(folder):
            raise UserError(
                f"model.path={self.path} is a late-interaction model, which gives a vector for each token; choose "
                f"model=colbert model.path={self.path}"
            )
        said = read_settings(folder)
        backbone, tokenizer = weights.load(folder)
        settings = self._settings(said, backbone)
        if said.lower_case:
            lower_case(tokenizer)
        if settings.pooling == "lasttoken":
            append_end_token(tokenizer, str(self.path))
        adapter = read_query_adapter(folder, said)
        if (adapter is not None or self.query_adapter.rank) and not settings.normalize:
            raise UserError(f"a query adapter of {self.path} needs vectors of unit length; set model.normalize=true")
        head = read_head(folder, said)
        encoder = BiEncoder(backbone, tokenizer, settings, head, str(folder), further, adapter)
        return self._by_back_end(encoder.to(choose_device(device)).eval(), store)

    def width(self) -> int:
        """Return the number of dimensions of a vector, without loading the backbone.

        Raises:
            UserError: the model's folder cannot be found or read.
        """
        weights, folder = self._weights()
        layers = [layer for layer in read_head(folder, read_settings(folder)) if isinstance(layer, Projection)]
        return layers[-1].linear.out_features if layers else weights.hidden_size(folder)

    def without_weights(self) -> tuple[PreTrainedModel, int | None]:
        """Make the backbone from its configuration only; also return the most tokens by its folder.

        Raises:
            UserError: the configuration cannot be found or read.
        """
        folder = find_here(str(self.path), self.revision, self.packages)
        return self._named().without_weights(), None if folder is None else read_settings(folder).max_length

    def check_length(self, backbone: PreTrainedModel) -> None:
        """Refuse a length that exceeds the backbone's positions.

        Raises:
            UserError: `max_length` exceeds its positions.
        """
        limit = positions(backbone)
        if limit is not None and self.max_length is not None and self.max_length > limit:
            raise UserError(
                f"model.max_length={self.max_length} exceeds the {limit} positions of {self.path}; "
                "lower model.max_length"
            )

    def _settings(self, said: FolderSettings, backbone: PreTrainedModel) -> Settings:
        self.check_length(backbone)
        limit = positions(backbone)
        own = None if said.max_length is None else min(said.max_length, limit or said.max_length)
        length = self._choose("max_length", self.max_length, own, min(limit or DEFAULT_LENGTH, DEFAULT_LENGTH))
        return Settings(
            pooling=self._choose("pooling", self.pooling, said.pooling, "mean"),
            normalize=self._choose("normalize", self.normalize, said.normalize, True),
            max_length=length,
            query_prompt=self._choose("query_prompt", self.query_prompt, said.query_prompt, ""),
            document_prompt=self._choose("document_prompt", self.document_prompt, said.document_prompt, ""),
            precision=by_pytorch(self.precision),
            attention=self.attention,
        )
