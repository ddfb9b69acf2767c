"""Training with sentence-transformers: its defaults, but for what is said here and no duplicates in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class PeerTraining:
    """How sentence-transformers trains all-MiniLM-L6-v2, on a CPU.

    Args:
        epochs: over all pairs.
        batch_size: pairs in a batch, no two of which share a text.
        max_length: tokens read of a text.
        bf16: whether it computes in bf16; its default is fp32.
        seed: of order and dropout.
        lr: the highest, after a tenth of all steps.
        cached: whether its loss encodes twice, in little memory.
        dims: of Matryoshka's loss; none for the plain one.
    """

    epochs: int
    batch_size: int
    max_length: int
    bf16: bool
    seed: int
    lr: float = 5e-5
    cached: bool = False
    dims: Sequence[int] = ()

    def load(self) -> SentenceTransformer:
        """Return the untrained model."""
        from minilm import MODEL
        from sentence_transformers import SentenceTransformer

        from embfit.model.location import find_model

        folder = find_model(str(MODEL.path), MODEL.revision, MODEL.packages)
        model = SentenceTransformer(str(folder), device="cpu")
        model.max_seq_length = self.max_length
        return model

    def fit(self, model: SentenceTransformer, pairs: Dataset, scratch: Path) -> None:
        """Train a model in place.

        Args:
            model: as `load` returns it.
            pairs: columns of texts: queries, positives, and any number of negatives.
            scratch: for the trainer's files.
        """
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.sentence_transformer.training_args import BatchSamplers

        settings = SentenceTransformerTrainingArguments(
            output_dir=str(scratch),
            num_train_epochs=self.epochs,
            per_device_train_batch_size=self.batch_size,
            learning_rate=self.lr,
            warmup_steps=0.1,  # a share of all steps
            seed=self.seed,
            bf16=self.bf16,
            use_cpu=True,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        SentenceTransformerTrainer(model=model, args=settings, train_dataset=pairs, loss=self._loss(model)).train()

    def _loss(self, model: SentenceTransformer) -> Any:
        from sentence_transformers.sentence_transformer.losses import (
            CachedMultipleNegativesRankingLoss,
            MatryoshkaLoss,
            MultipleNegativesRankingLoss,
        )

        loss: Any = (CachedMultipleNegativesRankingLoss if self.cached else MultipleNegativesRankingLoss)(model)
        return MatryoshkaLoss(model, loss, list(self.dims)) if self.dims else loss
