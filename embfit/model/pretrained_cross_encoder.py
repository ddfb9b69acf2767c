"""`model=cross-encoder`: what becomes a cross-encoder, and the first stage whose documents it reranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from embfit.errors import UserError
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.folder import Attention
from embfit.model.precision import Precision, choose_device
from embfit.model.pretrained import Pretrained
from embfit.model.ranker import load_ranker
from embfit.records import Seed


@dataclass(frozen=True)
class PretrainedCrossEncoder:
    """A cross-encoder behind a first stage, for `task=finetune`.

    Args:
        first_stage: the encoder that finds documents, for evaluation and for miners that search with a model.
        path: a ranker, or any encoder, which gets a fresh head; a folder or a name on the Hub. None starts from the
            first stage's weights.
        revision: branch, tag or commit of `path` on the Hub.
        max_length: tokens read of a pair; None is the model's own limit, 512 at most.
        attention: transformers' implementation; auto is SDPA, and plain products where a CPU trains.
        precision: of the computation; auto is bf16 where the hardware multiplies it.
        trust_remote_code: run Python code that comes with the model.
        candidates: the system of `evaluator.systems` whose documents are reranked; `base` is the first stage.
        depth: documents of a query that are reranked in evaluation.
        dev_depth: in a validation during training.
        seed: of a fresh head.
    """

    first_stage: Pretrained
    path: str | None = None
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

        Raises:
            UserError: the model cannot be found or read, or is no ranker and no encoder.
        """
        first = self.first_stage
        if self.path is None and first.path is None:
            raise UserError("model.first_stage.path is not set; give a folder or a name on the Hub")
        named = self.path is not None
        ranker = load_ranker(
            self.start,
            self.max_length,
            self.precision,
            self.attention,
            self.revision if named else first.revision,
            first.packages,
            self.trust_remote_code,
            fresh_head=self.seed,
        )
        return ranker.to(choose_device(device))

    @property
    def start(self) -> str:
        """What training starts from."""
        return str(self.path or self.first_stage.path)
