"""The in-batch-negative trainer: every query of a batch against every document of it.

A batch is a set of unique texts; `step.gradients` encodes them, and the loss sees the vectors of all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from embfit.errors import UserError
from embfit.loss import Relations
from embfit.model import Encoder
from embfit.model.precision import uses_bf16
from embfit.ragged import offsets_of
from embfit.tokens import Tokens, concatenate
from embfit.training.batch_words import BatchWords
from embfit.training.batches import Batch, EpochBatches, ExampleArrays
from embfit.training.grouping import Grouping
from embfit.training.guide import Guide, doubtful
from embfit.training.remining import Remining
from embfit.training.step.gradients import ComputeSettings, Inputs
from embfit.training.step.loss_parts import LossPart, loss_parts, row_blocks
from embfit.training.step.module import TrainingModule
from embfit.training.step.optimization import Optimization
from embfit.vectors import Vectors

log = logging.getLogger(__name__)

NO_NEGATIVE = "every document of its batch answers each query, or is a copy of one that does"


@dataclass(frozen=True)
class InBatchData:
    """What an encoder is trained on.

    Args:
        examples: the training set as arrays.
        query_tokens: the tokens of all the collection's queries.
        document_tokens: the tokens of all its documents.
        grouping: says which examples share a batch, of all ranks together.
        guide: says which negatives are doubtful; None believes them all.
        remining: gives later epochs other examples; None keeps the first ones.
        words: gives each batch BM25's scores; None if the loss does not use them.
    """

    unit: ClassVar[str] = "examples"

    examples: ExampleArrays
    query_tokens: Tokens
    document_tokens: Tokens
    grouping: Grouping
    guide: Guide | None = None
    remining: Remining | None = None
    words: BatchWords | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.grouping)

    @property
    def identity(self) -> Mapping[str, object]:
        """Identifies everything that the batches depend on, except the seed."""
        return {
            "examples": self.examples.digest,
            "grouping": self.grouping.digest,
            "guide": self.guide.digest if self.guide else None,
            "remine_every": self.remining.every if self.remining else None,
            "words": self.words.digest if self.words else None,
        }


@dataclass(frozen=True)
class PreparedBatch:
    """A batch with everything that was prepared without the device.

    Args:
        batch: its unique texts and the relations between them.
        texts: the tokens of its queries and then of its documents ([Q + D]).
        starts: [Q + D + 1] where each text's vectors begin; None means one vector each.
        guide: the guide's vectors of its queries and of its documents; None without a guide.
    """

    batch: Batch
    texts: Tokens
    starts: np.ndarray | None = None
    guide: tuple[Vectors[Tensor], Vectors[Tensor]] | None = None


class InBatch(TrainingModule):
    """Trains an encoder on batches of unique rows.

    Args:
        encoder: is trained in place.
        loss: is called on vectors and relations.
        data: what the encoder is trained on.
        optimization: says how weights are updated.
        compute: says how a step is computed.
    """

    encoder: Encoder

    def __init__(
        self, encoder: Encoder, loss: nn.Module, data: InBatchData, optimization: Optimization, compute: ComputeSettings
    ) -> None:
        super().__init__(encoder, loss, optimization, compute)
        self.data = data
        self._examples = data.examples  # of the current epoch
        self._learnt = False  # whether any step of the current epoch had a negative
        self._warned = False

    def epoch_batches(self) -> EpochBatches:
        """Return the batches of the current epoch."""
        remining, begins = self.data.remining, self.first_batch == 0
        if remining is not None:
            due = remining.is_due(self.current_epoch, begins)
            mining = self.full.encoder(together=True) if due else nullcontext(self.encoder)
            with self.between_steps(), mining as encoder:
                mined = remining.examples(self.current_epoch, begins, cast(Encoder, encoder), self.ranks)
            self._examples = self._examples if mined is None else mined
        return EpochBatches(self._examples, self.data.grouping, self.compute.seed, self.current_epoch)

    def prepare(self, batch: Batch) -> PreparedBatch:
        """Prepare a batch as far as no device is needed."""
        data = self.data
        batch = batch if data.words is None else data.words.scored(batch)
        texts = concatenate([data.query_tokens.take(batch.queries), data.document_tokens.take(batch.documents)])
        counts = self.encoder.vector_counts(texts)
        starts = None if counts is None else offsets_of(counts)
        guide = data.guide.vectors(batch.queries, batch.documents) if data.guide else None
        return PreparedBatch(batch, texts, starts, guide)

    def training_step(self, prepared: PreparedBatch, batch_idx: int) -> None:
        """Compute the loss of a batch and update the weights."""
        batch, texts = prepared.batch, prepared.texts
        relations = self._doubted(batch.relations.each(self.to_device), prepared.guide)
        bf16 = uses_bf16(self.compute.precision, self.device)

        def encode(rows: np.ndarray) -> Tensor:
            ids, roles = texts.padded(rows, self.encoder.pad_id, self.encoder.pads_left)
            vectors: Tensor = self.encoder(self.to_device(ids), roles, bf16)  # [v, W]
            return vectors

        def loss(outputs: Tensor) -> Iterator[LossPart]:  # [V, W]
            vectors = Vectors(outputs, prepared.starts)
            queries = vectors.part(0, len(batch.queries))
            documents = vectors.part(len(batch.queries), len(texts))
            return loss_parts(self.loss, queries, documents, relations)

        inputs = Inputs(texts.lengths, encode, (self.encoder.width,), prepared.starts)
        step = self.optimize(inputs, loss)
        positives, ignored = relations.positives, relations.ignored
        measured: dict[str, Tensor | float] = {
            "train/accuracy": step.batch.correct / positives.sum(),
            "train/masked_share": ignored.sum() / (positives.numel() - positives.sum()).clamp(min=1),
            "train/negatives": (positives.numel() - positives.sum() - ignored.sum()) / len(positives),
            "train/documents": float(len(batch.documents)),
        }
        temperature = getattr(self.loss, "temperature", None)  # not every loss has one
        if isinstance(temperature, Tensor):
            measured["train/temperature"] = temperature.detach()
        self.record(step, batch.pairs, measured)

    def examine(self, step: int, numbers: Mapping[str, float]) -> None:
        """Warn once if no query of a step had a negative, so that the weights did not change."""
        learnt = numbers["train/negatives"] > 0 or numbers["train/gradient_norm"] > 0
        if not (learnt or self._warned):
            self._warned = True
            log.warning(
                "no query of step %d has a negative: %s; such a step teaches nothing", step, self._no_negative()
            )
        self._learnt |= learnt

    def on_train_epoch_start(self) -> None:
        """Reset the record of whether a step of this epoch had a negative."""
        self._learnt = self.first_batch > 0  # the steps before a resume are not known

    def on_train_epoch_end(self) -> None:
        """Check that some step of the epoch had a negative.

        Raises:
            UserError: no step had one.
        """
        self.flush()
        if not self._learnt:
            guide = "; or lower training.guide_margin" if self.data.guide else ""
            raise UserError(
                f"no step of epoch {self.current_epoch + 1} had a negative: {self._no_negative()}, so nothing can be "
                "learnt.\nLook at the documents, which may be copies of each other; or choose a miner, such as "
                f"miner=dense, or a larger training.batch_size{guide}"
            )

    def _no_negative(self) -> str:
        """Return the reason why queries have no negative, for a message."""
        return NO_NEGATIVE + (", or the guide masks it" if self.data.guide else "")

    def _doubted(self, relations: Relations, vectors: tuple[Vectors[Tensor], Vectors[Tensor]] | None) -> Relations:
        """Return relations that ignore the pairs that the guide finds doubtful."""
        if vectors is None or self.data.guide is None:
            return relations
        queries, documents = (replace(one, rows=self.to_device(one.rows)) for one in vectors)
        found = [
            doubtful(
                queries.part(block.start, block.stop), documents, relations.positives[block], self.data.guide.margin
            )
            for block in row_blocks(queries, documents)
        ]
        return replace(relations, ignored=relations.ignored | torch.cat(found))
