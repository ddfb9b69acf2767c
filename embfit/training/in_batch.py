"""The in-batch-negative trainer: every query of a batch against every document of it.

A batch is a set of unique texts; `micro_batches` encodes them, and the loss sees all of their embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from embfit.loss import Relations
from embfit.model import Encoder
from embfit.model.precision import uses_bf16
from embfit.tokens import Tokens, concatenate
from embfit.training.batches import Batch, EpochBatches, ExampleArrays
from embfit.training.grouping import Grouping
from embfit.training.guide import Guide, doubtful
from embfit.training.remining import Remining
from embfit.training.step.micro_batches import ComputeSettings, MicroBatched
from embfit.training.step.optimization import Optimization
from embfit.training.step.row_blocks import loss_parts, row_blocks


@dataclass(frozen=True)
class PreparedBatch:
    """A batch with all that needs no device.

    Args:
        batch: unique texts and the relations between them.
        texts: tokens of its queries and then its documents ([Q + D]).
        guide: vectors of a guide's queries and documents, where there is one ([Q, G], [D, G]).
    """

    batch: Batch
    texts: Tokens
    guide: tuple[Tensor, Tensor] | None = None


class InBatch(MicroBatched):
    """Trains an encoder on batches of unique rows.

    Args:
        encoder: trained in place.
        loss: called on embeddings, labels and masks.
        examples: the training set as arrays.
        query_tokens: of all the collection's queries.
        document_tokens: of all its documents.
        optimization: learning rate and the like.
        grouping: which examples share a batch, of all ranks together.
        compute: how a step is computed.
        guide: says which negatives are doubtful; None believes them all.
    """

    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        loss: nn.Module,
        examples: ExampleArrays,
        query_tokens: Tokens,
        document_tokens: Tokens,
        optimization: Optimization,
        grouping: Grouping,
        compute: ComputeSettings,
        guide: Guide | None = None,
    ) -> None:
        super().__init__(encoder, loss, optimization, compute)
        self.examples = examples
        self.query_tokens = query_tokens
        self.document_tokens = document_tokens
        self.grouping = grouping
        self.guide = guide
        self.remining: Remining | None = None

    def epoch_batches(self) -> EpochBatches:
        """Return the batches of the current epoch."""
        if self.remining is not None:
            self.flush()
            begins = self.first_batch == 0
            mined = self.remining.examples(self.current_epoch, begins, self.encoder, self.ranks)
            self.examples = self.examples if mined is None else mined
            self.step_metrics.restart_clock()
        return EpochBatches(self.examples, self.grouping, self.compute.seed, self.current_epoch)

    def prepare(self, batch: Batch) -> PreparedBatch:
        """Do for a batch all that needs no device."""
        texts = concatenate([self.query_tokens.take(batch.queries), self.document_tokens.take(batch.documents)])
        return PreparedBatch(batch, texts, self.guide.vectors(batch.queries, batch.documents) if self.guide else None)

    def training_step(self, prepared: PreparedBatch, batch_idx: int) -> None:
        """Compute the loss of a batch and move the weights."""
        batch, texts = prepared.batch, prepared.texts
        relations = self._doubted(batch.relations.each(self.to_device), prepared.guide)
        bf16 = uses_bf16(self.compute.precision, self.device)

        def encode(rows: np.ndarray) -> Tensor:
            ids, mask = texts.padded(rows, self.encoder.pad_id, self.encoder.pads_left)
            vectors: Tensor = self.encoder(self.to_device(ids), self.to_device(mask), bf16)  # [n, H]
            return vectors

        def loss(vectors: Tensor) -> Iterator[Tensor]:  # [Q + D, H]
            return loss_parts(self.loss, *_sides(vectors, batch), relations)

        step = self.optimize(texts.lengths, encode, [self.encoder.width], loss)
        self.record(step, batch.pairs, self._measured_of(*_sides(step.outputs, batch), relations))

    def _doubted(self, relations: Relations, vectors: tuple[Tensor, Tensor] | None) -> Relations:
        """Have the pairs ignored that the guide doubts, by its vectors."""
        if vectors is None or self.guide is None:
            return relations
        queries, documents = map(self.to_device, vectors)
        found = [
            doubtful(queries[block], documents, relations.positives[block], self.guide.margin)
            for block in row_blocks(len(queries), len(documents))
        ]
        return replace(relations, ignored=relations.ignored | torch.cat(found))

    @torch.no_grad()
    def _measured_of(self, queries: Tensor, documents: Tensor, relations: Relations) -> dict[str, Tensor | float]:
        positives, ignored = relations.positives, relations.ignored
        above = torch.zeros((), device=queries.device)  # positives that score above all their negatives
        for block in row_blocks(len(queries), len(documents)):
            scores = queries[block] @ documents.T  # [B, D]
            excluded = positives[block] | ignored[block]
            hardest = scores.masked_fill(excluded, float("-inf")).amax(dim=1, keepdim=True)
            above += ((scores > hardest) & positives[block]).sum()
        measured: dict[str, Tensor | float] = {
            "train/accuracy": above / positives.sum(),
            "train/masked_share": ignored.sum() / (positives.numel() - positives.sum()).clamp(min=1),
            "train/documents": float(len(documents)),
        }
        temperature = getattr(self.loss, "temperature", None)  # not every loss has one
        return measured | ({"train/temperature": temperature.detach()} if isinstance(temperature, Tensor) else {})


def _sides(vectors: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the vectors of a batch's queries and of its documents ([Q, H], [D, H])."""
    return vectors[: len(batch.queries)], vectors[len(batch.queries) :]
