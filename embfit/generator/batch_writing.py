"""Write queries with a local model, batch by batch: in this process, or by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from embfit.cluster import Cluster, Do
from embfit.generator.decoding import CausalDecoding, Decodes, SeqToSeqDecoding
from embfit.generator.language_model import LanguageModel
from embfit.generator.sampling import Sample, Sampling
from embfit.generator.writing_jobs import WritingJob, within_memory

Written: TypeAlias = tuple[list[WritingJob], list[list[Sample]]]
"""Documents, and the samples of each."""


@dataclass(frozen=True)
class WritingBatch:
    """Documents that are written about in one batch.

    Args:
        prefix: the tokens before every prompt, which a causal model reads once for consecutive batches that share them.
        jobs: the prompt of each document, and the number of its queries.
    """

    prefix: tuple[int, ...]
    jobs: list[WritingJob]


def write_batches(
    model: LanguageModel,
    batches: Sequence[WritingBatch],
    sampling: Sampling,
    claim: Callable[[WritingBatch], WritingBatch],
    cluster: Cluster | None = None,
) -> Iterator[Written]:
    """Yield documents with their samples, as soon as they are written.

    Args:
        model: the model that writes.
        batches: the documents; batches with the same prefix follow one another.
        sampling: how tokens are drawn.
        claim: returns a batch with only those documents that still need queries; called once for each batch, just
            before it is written or sent.
        cluster: the workers that write; None writes in this process, batch after batch.

    Raises:
        RuntimeError: there is not enough memory for a single document.
        UserError: the workers are lost.
    """
    if cluster is None:
        write = _Writer(model, sampling)
        for batch in batches:
            yield from write(claim(batch))
        return
    claimed: dict[int, WritingBatch] = {}  # so that a batch is claimed once, even if it is sent again to another worker

    def part(number: int) -> WritingBatch:
        if number not in claimed:
            claimed[number] = claim(batches[number])
        return claimed[number]

    for number, written in cluster.spread(WritingWork(model, sampling), part, range(len(batches))):
        places = {job.request.id: job for job in claimed.pop(number).jobs}
        for ids, samples in written:
            yield [places[one] for one in ids], samples


@dataclass(frozen=True)
class WritingWork:
    """A worker's model, and how it draws tokens."""

    model: LanguageModel
    sampling: Sampling

    def prepare(self, device: str) -> Do:
        """Return the function that writes a batch on a device."""
        moved = replace(self.model, model=self.model.model.to(torch.device(device)).eval())
        write = _Writer(moved, self.sampling)
        return lambda batch: [([job.request.id for job in jobs], samples) for jobs, samples in write(batch)]


class _Writer:
    """Writes batches; the prefix of the prompts is read again only if it changes."""

    def __init__(self, model: LanguageModel, sampling: Sampling) -> None:
        self._model, self._sampling = model, sampling
        self._prefix: tuple[int, ...] | None = None
        self._decoding: Decodes | None = None

    def __call__(self, batch: WritingBatch) -> Iterator[Written]:
        if not batch.jobs:
            return
        if self._decoding is None or self._prefix != batch.prefix:
            self._prefix, self._decoding = batch.prefix, self._decodes(batch.prefix)
        yield from within_memory(self._decoding, batch.jobs, self._sampling)

    def _decodes(self, prefix: tuple[int, ...]) -> Decodes:
        model = self._model
        if model.is_seq_to_seq:
            return SeqToSeqDecoding(model.model, model.stops)
        return CausalDecoding(model.model, model.stops, prefix)
