"""The in-batch-negative trainer: every query of a batch against every document of it.

A batch is a set of unique texts; `micro_batches` encodes them, and the loss sees all of their embeddings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from embfit.model import Encoder
from embfit.model.precision import Precision, uses_bf16
from embfit.tokens import Tokens, concatenate
from embfit.training.batches import Batch, EpochBatches, Examples
from embfit.training.micro_batches import MicroBatched, Optimization, Portions, Step
from embfit.training.remining import Remining


class InBatch(MicroBatched):
    """Trains an encoder on batches of unique rows.

    Args:
        encoder: trained in place.
        loss: called on embeddings, labels and masks.
        examples: the training set as arrays.
        query_tokens: of all the collection's queries.
        document_tokens: of all its documents.
        optimization: learning rate and the like.
        batch_size: examples in a batch, of all ranks together.
        token_budget: padded tokens in a micro-batch.
        memory_gb: for graphs that are kept; None is half of what is free when training starts.
        dropout: whether the encoder's dropout is on.
        precision: of the encoder's computation.
        seed: of order, drawing and dropout.
    """

    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        loss: nn.Module,
        examples: Examples,
        query_tokens: Tokens,
        document_tokens: Tokens,
        optimization: Optimization,
        batch_size: int,
        token_budget: int,
        memory_gb: float | None,
        dropout: bool,
        precision: Precision,
        seed: int,
    ) -> None:
        super().__init__(encoder, loss, optimization, Portions(token_budget, memory_gb, dropout, precision, seed))
        self.examples = examples
        self.query_tokens = query_tokens
        self.document_tokens = document_tokens
        self.batch_size = batch_size
        self.remining: Remining | None = None

    def epoch_batches(self) -> EpochBatches:
        """Return the batches of the current epoch."""
        if self.remining is not None:
            begins = self.first_batch == 0
            mined = self.remining.examples(self.current_epoch, begins, self.encoder, self.ranks)
            self.examples = self.examples if mined is None else mined
        return EpochBatches(self.examples, self.batch_size, self.portions.seed, self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Compute the loss of a batch and move the weights."""
        texts = concatenate([self.query_tokens.take(batch.queries), self.document_tokens.take(batch.documents)])
        positives, ignored = batch.positives.to(self.device), batch.ignored.to(self.device)
        weights = batch.weights.to(self.device)
        teacher = () if batch.teacher is None else (batch.teacher.to(self.device),)

        def encode(rows: np.ndarray) -> Tensor:
            ids, mask = texts.padded(rows, self.encoder.pad_id, self.encoder.pads_left)
            bf16 = uses_bf16(self.portions.precision, self.device)
            vectors: Tensor = self.encoder(ids.to(self.device), mask.to(self.device), bf16)  # [n, H]
            return vectors

        def loss(vectors: Tensor) -> Tensor:  # [Q + D, H]
            queries, documents = vectors[: len(batch.queries)], vectors[len(batch.queries) :]
            value: Tensor = self.loss(queries, documents, positives, ignored, weights, *teacher)
            return value

        step = self.descend(texts.lengths, encode, [self.encoder.width], loss)
        self.pairs_seen += batch.pairs
        if self.ranks.leads:
            self._log(batch, step)

    @torch.no_grad()
    def _log(self, batch: Batch, step: Step) -> None:
        queries, documents = step.outputs[: len(batch.queries)], step.outputs[len(batch.queries) :]
        positives, ignored = batch.positives.to(self.device), batch.ignored.to(self.device)
        scores = queries @ documents.T  # [Q, D]
        hardest = scores.masked_fill(positives | ignored, -2.0).amax(dim=1, keepdim=True)  # cosines are above -2
        right = (scores > hardest)[positives].float().mean()
        self.log_dict(
            {
                "train/loss": step.loss.detach(),
                "train/accuracy": right,  # share of positives that score above all their negatives
                "train/lr": self.learning_rate,
                "train/gradient_norm": step.norm,
                "train/padding_share": step.padding,
                "train/ignored_share": ignored.float().mean(),
                "train/documents": float(len(documents)),
            }
        )
        temperature = getattr(self.loss, "temperature", None)  # not every loss has one
        if isinstance(temperature, Tensor):
            self.log("train/temperature", temperature)
