"""Batches of unique rows. Seed and epoch decide which examples share a batch; ids decide which documents are negatives.

A batch names every query and document once, however many examples share it. Documents of equal text share one row, so
a copy of a positive can never be its negative.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from embfit.loss import Relations
from embfit.ragged import Ragged, offsets_of
from embfit.random_streams import random_stream
from embfit.records import TrainingSet
from embfit.training.grouping import Grouping

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Batch:
    """Unique texts and the relations between them.

    Args:
        queries: [Q] query rows, ascending.
        documents: [D] document rows, ascending.
        relations: labels and masks of both. A document that is relevant to a query, but not a positive here, is
            ignored. Weights and teacher's scores are means where a query has several examples here.
    """

    queries: np.ndarray
    documents: np.ndarray
    relations: Relations

    @property
    def pairs(self) -> int:
        """Number of (query, positive) pairs."""
        return int(self.relations.positives.sum())


class ExampleArrays:
    """A training set as arrays, with documents of equal text under one row.

    Args:
        training_set: what the miner made.
        max_positives: how many positives of one query an epoch has; drawn again each epoch when there are more.
    """

    def __init__(self, training_set: TrainingSet, max_positives: int) -> None:
        collection, table = training_set.collection, training_set.rows
        copies = collection.document_copies.astype(np.int64)
        self.max_positives = max_positives
        self.queries = np.asarray(table["query"][:], np.int64)  # [N]
        self.weights = np.asarray(table["weight"][:], np.float32)  # [N]
        if (weights := collection.query_weights) is not None:
            self.weights = self.weights * weights[self.queries]
        said = collection.query_sources  # the source in the data, else the miner's name
        sources = table["source"][:] if said is None else np.asarray(said)[self.queries]
        self.sources = np.unique(sources, return_inverse=True)[1]  # [N] numbers of their names
        self.positives = _ragged(table, "positives", copies)
        self.negatives = _ragged(table, "negatives", copies)
        self.teacher = _floats(table["scores"][:])
        self.scored = _scored(self.positives, self.negatives, self.teacher)
        known = Ragged.of(
            sorted({*training_set.relevant.get(int(query), ()), *positives})  # an undrawn positive is not a negative
            for query, positives in zip(self.queries, table["positives"][:], strict=True)
        )
        self.relevant = Ragged(copies[known.values], known.offsets)

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def digest(self) -> str:
        """Identifies everything that batches are made of."""
        parts = (self.positives, self.negatives, self.relevant, self.teacher)
        arrays = [self.queries, self.weights, *(array for part in parts for array in (part.values, part.offsets))]
        found = hashlib.sha256(str(self.max_positives).encode())
        for array in arrays:
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def batch(self, examples: np.ndarray, generator: np.random.Generator) -> Batch:
        """Put some examples into a batch.

        Args:
            examples: [n] example numbers.
            generator: draws positives where an example has more than `max_positives`.
        """
        queries, query_of = np.unique(self.queries[examples], return_inverse=True)  # [Q], [n]
        positives = self.positives.take(examples).sample(self.max_positives, generator)
        negatives = self.negatives.take(examples).values
        documents = np.unique(np.concatenate([positives.values, negatives]))  # [D]

        labels = np.zeros((len(queries), len(documents)), bool)
        labels[query_of[positives.owners], np.searchsorted(documents, positives.values)] = True
        relevant = self.relevant.take(examples)
        columns = np.searchsorted(documents, relevant.values).clip(max=len(documents) - 1)
        here = documents[columns] == relevant.values
        ignored = np.zeros_like(labels)
        ignored[query_of[relevant.owners[here]], columns[here]] = True

        _, weights = _means(query_of, self.weights[examples])  # [Q]
        teacher = self._teacher(examples, query_of, documents, labels.shape) if self.has_teacher else None
        known = torch.from_numpy(labels), torch.from_numpy(ignored & ~labels), torch.from_numpy(weights)
        return Batch(queries, documents, Relations(*known, teacher))

    @property
    def has_teacher(self) -> bool:
        """Whether any pair has a teacher's score."""
        return len(self.teacher.values) > 0

    def _teacher(
        self, examples: np.ndarray, query_of: np.ndarray, documents: np.ndarray, shape: tuple[int, ...]
    ) -> Tensor:
        """Return the teacher's scores of a batch's pairs ([Q, D])."""
        scored, scores = self.scored.take(examples), self.teacher.take(examples).values
        columns = np.searchsorted(documents, scored.values).clip(max=len(documents) - 1)
        here = documents[columns] == scored.values  # a positive that was not drawn is in no batch
        places, means = _means(query_of[scored.owners[here]] * shape[1] + columns[here], scores[here])
        matrix = np.full(shape, np.nan, np.float32)
        matrix.flat[places] = means
        return torch.from_numpy(matrix)


class EpochBatches(torch.utils.data.Dataset[Batch]):
    """The batches of one epoch: the same for the same seed and epoch.

    Args:
        examples: the training set as arrays.
        grouping: says which examples share a batch.
        seed: the run's seed.
        epoch: the epoch, from 0.
    """

    def __init__(self, examples: ExampleArrays, grouping: Grouping, seed: int, epoch: int) -> None:
        self.examples = examples
        self.seed = (seed, epoch)
        self.parts = grouping.draw(random_stream("batches of an epoch", *self.seed))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, row: int) -> Batch:
        if row >= len(self.parts):
            raise IndexError(row)
        return self.examples.batch(self.parts[row], random_stream("positives of a batch", *self.seed, row))


def _ragged(table: Dataset, column: str, copies: np.ndarray) -> Ragged:
    lists = Ragged.of(table[column][:])
    return Ragged(copies[lists.values], lists.offsets)


def _floats(lists: Sequence[Sequence[float]]) -> Ragged:
    values = np.array([value for values in lists for value in values], np.float32)
    return Ragged(values, offsets_of([len(values) for values in lists]))


def _means(owners: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the owners of values, ascending and once each, and the mean (float32) of each one's values."""
    every, place = np.unique(owners, return_inverse=True)
    return every, (np.bincount(place, values) / np.bincount(place)).astype(np.float32)


def _scored(positives: Ragged, negatives: Ragged, teacher: Ragged) -> Ragged:
    """Return the documents that a teacher has scored: of an example all, positives first, or none."""
    values: list[np.ndarray] = []
    for row, scores in enumerate(teacher.lengths if len(teacher.values) else ()):
        documents = np.concatenate([part.part(row, row + 1).values for part in (positives, negatives)])
        if scores not in (0, len(documents)):
            raise ValueError(
                f"example {row} has {len(documents)} documents and {scores} scores; give one each, or none"
            )
        values.append(documents[:scores])
    return Ragged.of(values)
