"""The trainer of cross-encoders: a query's positives and negatives are a list, whose scores the loss sees together.

Pairs of all lists of a batch are sorted by length and cut into micro-batches (`micro_batches`); each text was tokenised
once, before training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from embfit.model import CrossEncoder
from embfit.model.precision import uses_bf16
from embfit.ragged import Ragged
from embfit.tokens import Tokens
from embfit.training.batches import ExampleArrays
from embfit.training.grouping import RandomGrouping
from embfit.training.step.micro_batches import ComputeSettings, MicroBatched
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
        examples: all of them.
        batch_size: lists in a batch, at most.
        negatives: of a list, at most; drawn anew each epoch when there are more.
        seed: of the run.
        epoch: counted from 0.
    """

    def __init__(self, examples: ExampleArrays, batch_size: int, negatives: int, seed: int, epoch: int) -> None:
        self.examples = examples
        self.negatives = negatives
        self.seed = (seed, epoch)
        self.parts = RandomGrouping(len(examples), batch_size).draw(np.random.default_rng(self.seed))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, row: int) -> ListBatch:
        if row >= len(self.parts):
            raise IndexError(row)
        chosen, random = self.parts[row], np.random.default_rng((*self.seed, row))
        positives = self.examples.positives.take(chosen).sample(self.examples.max_positives, random)
        negatives = self.examples.negatives.take(chosen).sample(self.negatives, random)
        return list_batch(self.examples.queries[chosen], positives, negatives, self.examples.weights[chosen])


def list_batch(queries: np.ndarray, positives: Ragged, negatives: Ragged, weights: np.ndarray) -> ListBatch:
    """Put each query's positives, then its negatives, into a row of a matrix as wide as the longest list."""
    lengths = positives.lengths + negatives.lengths
    shape = (len(queries), int(lengths.max()))
    owners = np.concatenate([positives.owners, negatives.owners])
    within = [np.arange(len(one.values)) - np.repeat(one.offsets[:-1], one.lengths) for one in (positives, negatives)]
    columns = np.concatenate([within[0], within[1] + positives.lengths[negatives.owners]])
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


class Lists(MicroBatched):
    """Trains a cross-encoder on lists.

    Args:
        encoder: the cross-encoder, trained in place.
        loss: called on scores and labels.
        examples: the training set as arrays.
        query_tokens: of all the collection's queries, without special tokens.
        document_tokens: of all its documents, likewise.
        optimization: learning rate and the like.
        batch_size: lists in a batch, of all ranks together.
        negatives: of a list, at most.
        compute: how a step is computed.
    """

    encoder: CrossEncoder

    def __init__(
        self,
        encoder: CrossEncoder,
        loss: nn.Module,
        examples: ExampleArrays,
        query_tokens: Tokens,
        document_tokens: Tokens,
        optimization: Optimization,
        batch_size: int,
        negatives: int,
        compute: ComputeSettings,
    ) -> None:
        super().__init__(encoder, loss, optimization, compute)
        self.examples = examples
        self.query_tokens = query_tokens
        self.document_tokens = document_tokens
        self.batch_size = batch_size
        self.negatives = negatives

    def epoch_batches(self) -> EpochLists:
        """Return the batches of the current epoch."""
        seed = self.compute.seed
        return EpochLists(self.examples, self.batch_size, self.negatives, seed, self.current_epoch)

    def training_step(self, batch: ListBatch, batch_idx: int) -> None:
        """Score the pairs of a batch and move the weights."""
        pairs = self.encoder.pairs(self.query_tokens, self.document_tokens, batch.pairs)
        places, positives, negatives = map(self.to_device, (batch.places, batch.positives, batch.negatives))
        weights = self.to_device(batch.weights)
        bf16 = uses_bf16(self.compute.precision, self.device)

        def encode(chosen: np.ndarray) -> Tensor:
            inputs = pairs.padded(chosen, self.encoder.pad_id, self.encoder.pads_left)
            scores: Tensor = self.encoder(*map(self.to_device, inputs), bf16)  # [n]
            return scores

        def loss(scores: Tensor) -> list[Tensor]:  # [P]
            return [self.loss(by_list(scores, places, positives.shape), positives, negatives, weights)]

        step = self.optimize(pairs.lengths, encode, [], loss)
        scores = by_list(step.outputs, places, positives.shape)  # [Q, L]
        hardest = scores.masked_fill(~negatives, float("-inf")).amax(dim=1, keepdim=True)
        measured: dict[str, Tensor | float] = {
            # share of positives that score above all their negatives
            "train/accuracy": ((scores > hardest) & positives).sum() / positives.sum(),
        }
        self.record(step, len(pairs), measured)


def by_list(scores: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Return scores by list ([P] → [Q, L]), 0 in empty places."""
    flat = torch.zeros(shape.numel(), device=scores.device)
    return flat.index_put((places,), scores).view(shape)
