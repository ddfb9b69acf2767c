"""The trainer of cross-encoders: a query's positives and negatives are a list, whose scores the loss sees together.

Pairs of all lists of a batch are sorted by length and cut into micro-batches (`step.gradients`); each text was
tokenised once, before training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from embfit.model import CrossEncoder
from embfit.model.precision import uses_bf16
from embfit.ragged import Ragged
from embfit.random_streams import random_stream
from embfit.tokens import Tokens
from embfit.training.batches import ExampleArrays
from embfit.training.grouping import RandomGrouping
from embfit.training.step.gradients import ComputeSettings, Inputs
from embfit.training.step.loss_parts import LossPart, count_correct
from embfit.training.step.module import TrainingModule
from embfit.training.step.optimization import Optimization


@dataclass(frozen=True)
class ListBatch:
    """Lists of documents to be scored against their queries.

    Args:
        pairs: [P, 2] int64, a query row and a document row each.
        places: [P] int64, where a pair's score goes in the flattened [Q, L] matrix of scores.
        positives: [Q, L] bool.
        negatives: [Q, L] bool; a place that is neither is empty.
        weights: [Q] float32.
    """

    pairs: np.ndarray
    places: Tensor
    positives: Tensor
    negatives: Tensor
    weights: Tensor


class EpochLists(torch.utils.data.Dataset[ListBatch]):
    """The batches of one epoch: the same for the same seed and epoch.

    Args:
        examples: the training set as arrays.
        batch_size: how many lists a batch has, at most.
        negatives: how many negatives a list has, at most; drawn again each epoch when there are more.
        seed: the run's seed.
        epoch: the epoch, from 0.
    """

    def __init__(self, examples: ExampleArrays, batch_size: int, negatives: int, seed: int, epoch: int) -> None:
        self.examples = examples
        self.negatives = negatives
        self.seed = (seed, epoch)
        self.parts = RandomGrouping(len(examples), batch_size).draw(random_stream("batches of an epoch", *self.seed))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, row: int) -> ListBatch:
        if row >= len(self.parts):
            raise IndexError(row)
        chosen, random = self.parts[row], random_stream("lists of a batch", *self.seed, row)
        positives = self.examples.positives.take(chosen).sample(self.examples.max_positives, random)
        negatives = self.examples.negatives.take(chosen).sample(self.negatives, random)
        return list_batch(self.examples.queries[chosen], positives, negatives, self.examples.weights[chosen])


def list_batch(queries: np.ndarray, positives: Ragged, negatives: Ragged, weights: np.ndarray) -> ListBatch:
    """Put each query's positives, then its negatives, into a row of a matrix as wide as the longest list."""
    lengths = positives.lengths + negatives.lengths
    shape = (len(queries), int(lengths.max()))
    owners = np.concatenate([positives.owners, negatives.owners])
    columns = np.concatenate([positives.within, negatives.within + positives.lengths[negatives.owners]])
    labels = np.zeros((2, *shape), bool)
    split = len(positives.values)
    labels[0, owners[:split], columns[:split]] = True
    labels[1, owners[split:], columns[split:]] = True
    documents = np.concatenate([positives.values, negatives.values])
    return ListBatch(
        pairs=np.stack([queries[owners], documents], axis=1).astype(np.int64),
        places=torch.from_numpy(owners * shape[1] + columns),
        positives=torch.from_numpy(labels[0]),
        negatives=torch.from_numpy(labels[1]),
        weights=torch.from_numpy(np.asarray(weights, np.float32)),
    )


@dataclass(frozen=True)
class ListData:
    """What a cross-encoder is trained on.

    Args:
        examples: the training set as arrays.
        query_tokens: the tokens of all the collection's queries, without special tokens.
        document_tokens: the tokens of all its documents, likewise.
        batch_size: how many lists a batch has, of all ranks together.
        negatives: how many negatives a list has, at most.
    """

    unit: ClassVar[str] = "lists"

    examples: ExampleArrays
    query_tokens: Tokens
    document_tokens: Tokens
    batch_size: int
    negatives: int

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(RandomGrouping(len(self.examples), self.batch_size))

    @property
    def identity(self) -> Mapping[str, object]:
        """Identifies everything that the batches depend on, except the seed."""
        return {"examples": self.examples.digest, "batch_size": self.batch_size, "negatives": self.negatives}


class Lists(TrainingModule):
    """Trains a cross-encoder on lists.

    Args:
        encoder: the cross-encoder, which is trained in place.
        loss: is called on scores and labels.
        data: what the cross-encoder is trained on.
        optimization: says how weights are updated.
        compute: says how a step is computed.
    """

    encoder: CrossEncoder

    def __init__(
        self,
        encoder: CrossEncoder,
        loss: nn.Module,
        data: ListData,
        optimization: Optimization,
        compute: ComputeSettings,
    ) -> None:
        super().__init__(encoder, loss, optimization, compute)
        self.data = data

    def epoch_batches(self) -> EpochLists:
        """Return the batches of the current epoch."""
        data = self.data
        return EpochLists(data.examples, data.batch_size, data.negatives, self.compute.seed, self.current_epoch)

    def training_step(self, batch: ListBatch, batch_idx: int) -> None:
        """Score the pairs of a batch and update the weights."""
        pairs = self.encoder.pairs(self.data.query_tokens, self.data.document_tokens, batch.pairs)
        places, positives, negatives = map(self.to_device, (batch.places, batch.positives, batch.negatives))
        weights = self.to_device(batch.weights)
        bf16 = uses_bf16(self.compute.precision, self.device)

        def encode(chosen: np.ndarray) -> Tensor:
            inputs = pairs.padded(chosen, self.encoder.pad_id, self.encoder.pads_left)
            scores: Tensor = self.encoder(*map(self.to_device, inputs), bf16)  # [n]
            return scores

        def loss(outputs: Tensor) -> list[LossPart]:  # [P]
            scores = by_list(outputs, places, positives.shape)  # [Q, L]
            value = self.loss(scores, positives, negatives, weights)
            return [LossPart(value, count_correct(scores.detach(), positives, negatives))]

        step = self.optimize(Inputs(pairs.lengths, encode), loss)
        self.record(step, len(pairs), {"train/accuracy": step.batch.correct / positives.sum()})


def by_list(scores: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Return scores by list ([P] → [Q, L]), 0 in empty places."""
    flat = torch.zeros(shape.numel(), device=scores.device)
    return flat.index_put((places,), scores).view(shape)
