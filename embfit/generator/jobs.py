"""Documents that a local model writes about at once, as many as memory takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from embfit.generator.decoding import Decodes, Prompt, Sample, Sampling
from embfit.generator.plan import QueryRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WritingJob:
    """A request with what the model reads for it."""

    request: QueryRequest
    prompt: Prompt

    @property
    def count(self) -> int:
        """The number of queries."""
        return self.request.entry.count

    def behind(self, before: Sequence[int]) -> WritingJob:
        """Return the job with tokens in front of its prompt."""
        return replace(self, prompt=replace(self.prompt, tokens=[*before, *self.prompt.tokens]))


def within_memory(
    decoding: Decodes, jobs: list[WritingJob], sampling: Sampling
) -> Iterator[tuple[list[WritingJob], list[list[Sample]]]]:
    """Yield jobs with their samples; where memory is short, half of them at a time, and half of that again.

    Raises:
        RuntimeError: there is no memory for a single one.
    """
    try:
        found = decoding.sample([job.prompt for job in jobs], jobs[0].count, sampling)
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error) or len(jobs) == 1:
            raise
        found = None
    if found is not None:
        yield jobs, found
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("memory is short for %d documents at once; going on with half of them", len(jobs))
    middle = len(jobs) // 2
    yield from within_memory(decoding, jobs[:middle], sampling)
    yield from within_memory(decoding, jobs[middle:], sampling)


def _is_out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in said or "out of memory" in said
    )
