"""`model=cross-encoder`: the model that becomes a cross-encoder, and the first stage whose documents it reranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from embfit.errors import UserError
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.loading import Weights
from embfit.model.precision import Precision
from embfit.model.settings import Attention
from embfit.records import Seed
from embfit.type_hints import Location


@dataclass(frozen=True)
class PretrainedCrossEncoder:
    """A cross-encoder after a first stage, for `task=finetune`.

    Args:
        first_stage: the encoder that finds documents, for evaluation and for miners that search with a model.
        path: a ranker, or any encoder, which gets a fresh head; a folder or a name on the Hub. None starts from the
            first stage's weights.
        revision: the branch, tag or commit of `path` on the Hub.
        max_length: the most tokens of a pair; None is the model's own limit, at most 512.
        attention: transformers' implementation of attention; auto is SDPA, and plain attention for training on a CPU.
        precision: the number format of the backbone; auto is bf16 if the hardware supports it.
        trust_remote_code: whether to run Python code that comes with the model.
        candidates: the system of `evaluator.systems` whose documents are reranked; `base` is the first stage.
        depth: how many documents of each query are reranked in evaluation.
        dev_depth: how many documents of each query are reranked in a validation during training.
        seed: the seed of a new head.
    """

    only_for: ClassVar[str] = (
        "cross-encoder is for task=finetune; elsewhere name its folder: miner.model=FOLDER to mine, "
        "evaluator.systems.reranked.path=FOLDER to measure"
    )
    """What a task that cannot use it answers."""

    first_stage: EncoderChoice
    path: Annotated[str | None, Location()] = None
    revision: str | None = None
    max_length: Annotated[int, Field(ge=8)] | None = 256
    attention: Attention = "auto"
    precision: Precision = "auto"
    trust_remote_code: bool = False
    candidates: str = "base"
    depth: Annotated[int, Field(ge=1)] = 50
    dev_depth: Annotated[int, Field(ge=1)] = 20
    seed: Seed = 0

    def load(self, device: str = "auto") -> CrossEncoder:
        """Load the model from which training starts.

        Args:
            device: the device of the weights; `auto` is a GPU if there is one.

        Raises:
            UserError: the model cannot be found or read, or is neither a ranker nor an encoder.
        """
        first = self.first_stage
        if self.path is None and first.path is None:
            raise UserError("model.first_stage.path is not set; give a folder or a name on the Hub")
        weights = Weights(
            self.start,
            first.revision if self.path is None else self.revision,
            first.packages,
            first.sha256 if self.path is None else None,
            attention=self.attention,
            trust_remote_code=self.trust_remote_code,
        )
        return CrossEncoder.load_weights(weights, self.max_length, self.precision, device, fresh_head=self.seed)

    def load_saved(self, folder: Path, device: str = "auto") -> CrossEncoder:
        """Load the model that a training of this one has saved.

        Raises:
            UserError: the model cannot be read.
        """
        return replace(self, path=str(folder), revision=None).load(device)

    @property
    def start(self) -> str:
        """The weights from which training starts."""
        return str(self.path or self.first_stage.path)
