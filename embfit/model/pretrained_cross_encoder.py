"""`model=cross-encoder`: what becomes a cross-encoder, and the first stage whose documents it reranks."""

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
    """A cross-encoder behind a first stage, for `task=finetune`.

    Args:
        first_stage: the encoder that finds documents, for evaluation and for miners that search with a model.
        path: a ranker, or any encoder, which gets a fresh head; a folder or a name on the Hub. None starts from the
            first stage's weights.
        revision: the branch, tag or commit of `path` on the Hub.
        max_length: how many tokens are read of a pair; None is the model's own limit, 512 at most.
        attention: which of transformers' implementations computes attention; auto is SDPA, and plain products where a
            CPU trains.
        precision: what the backbone computes in; auto is bf16 where the hardware multiplies it.
        trust_remote_code: whether Python code that comes with the model is run.
        candidates: the system of `evaluator.systems` whose documents are reranked; `base` is the first stage.
        depth: how many documents of a query are reranked in evaluation.
        dev_depth: how many are reranked in a validation during training.
        seed: what a fresh head is drawn with.
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
        """Load the model that training starts from.

        Args:
            device: what the weights are put on; `auto` is a GPU where there is one.

        Raises:
            UserError: the model cannot be found or read, or is no ranker and no encoder.
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
        """Load what a training of this model has saved.

        Raises:
            UserError: it cannot be read.
        """
        return replace(self, path=str(folder), revision=None).load(device)

    @property
    def start(self) -> str:
        """What training starts from."""
        return str(self.path or self.first_stage.path)
