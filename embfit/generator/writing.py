"""What a local model writes, lot by lot: in this process, or by the workers of a cluster, which get the same lots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from embfit.cluster import Cluster, Do
from embfit.generator.decoding import CausalDecoding, Decodes, Sample, Sampling, SeqToSeqDecoding
from embfit.generator.jobs import WritingJob, within_memory
from embfit.generator.language_model import LanguageModel

Written: TypeAlias = tuple[list[WritingJob], list[list[Sample]]]
"""Documents, and the samples of each."""


@dataclass(frozen=True)
class Lot:
    """Documents that are written about at once.

    Args:
        before: tokens that stand before every prompt, which a causal model reads once for all lots that share them.
        jobs: what is read and wanted of each document.
    """

    before: tuple[int, ...]
    jobs: list[WritingJob]


def write_lots(
    model: LanguageModel,
    lots: Sequence[Lot],
    sampling: Sampling,
    take: Callable[[Lot], Lot],
    cluster: Cluster | None = None,
) -> Iterator[Written]:
    """Yield what is written, as soon as it is there.

    Args:
        model: writes.
        lots: the documents; those that share what stands before their prompts follow one another.
        sampling: how tokens are drawn.
        take: returns a lot with those of its documents that are still to be written about; called once for each,
            just before it is written or sent.
        cluster: has the workers that write; None writes in this process, lot after lot.

    Raises:
        RuntimeError: there is no memory for a single document.
        UserError: the workers are lost.
    """
    if cluster is None:
        write = _Writer(model, sampling)
        for lot in lots:
            yield from write(take(lot))
        return
    taken: dict[int, Lot] = {}  # a lot whose worker is lost is sent again, and taken once

    def part(number: int) -> Lot:
        if number not in taken:
            taken[number] = take(lots[number])
        return taken[number]

    for number, written in cluster.spread(WritingWork(model, sampling), part, range(len(lots))):
        places = {job.request.id: job for job in taken.pop(number).jobs}
        for ids, samples in written:
            yield [places[one] for one in ids], samples


@dataclass(frozen=True)
class WritingWork:
    """What a worker writes with."""

    model: LanguageModel
    sampling: Sampling

    def prepare(self, device: str) -> Do:
        """Return what writes a lot on a device."""
        moved = replace(self.model, model=self.model.model.to(torch.device(device)).eval())
        write = _Writer(moved, self.sampling)
        return lambda lot: [([job.request.id for job in jobs], samples) for jobs, samples in write(lot)]


class _Writer:
    """Writes lots; what stands before the prompts is read again only where it changes."""

    def __init__(self, model: LanguageModel, sampling: Sampling) -> None:
        self._model, self._sampling = model, sampling
        self._before: tuple[int, ...] | None = None
        self._decoding: Decodes | None = None

    def __call__(self, lot: Lot) -> Iterator[Written]:
        if not lot.jobs:
            return
        if self._decoding is None or self._before != lot.before:
            self._before, self._decoding = lot.before, self._decodes(lot.before)
        yield from within_memory(self._decoding, lot.jobs, self._sampling)

    def _decodes(self, before: tuple[int, ...]) -> Decodes:
        model = self._model
        if model.is_seq_to_seq:
            return SeqToSeqDecoding(model.model, model.stops)
        return CausalDecoding(model.model, model.stops, before)
