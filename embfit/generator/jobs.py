"""Documents that a local model writes about at once, as many as memory takes, and the record of what it wrote."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from embfit.generator.budget import Budget, Spending
from embfit.generator.decoding import Decodes, Prompt, Sample, Sampling
from embfit.generator.journal import Journal
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


def batches(jobs: Sequence[WritingJob], size: int) -> Iterator[list[WritingJob]]:
    """Yield batches of one number of queries and of like lengths, the longest first: memory is short at once."""
    ordered = sorted(jobs, key=lambda job: (job.count, len(job.prompt.tokens)), reverse=True)
    batch: list[WritingJob] = []
    for job in ordered:
        if batch and (job.count != batch[0].count or len(batch) == size):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def record(
    jobs: Sequence[WritingJob],
    samples: Sequence[Sequence[Sample]],
    read: Callable[[Sequence[int]], str],
    seconds: float,
    journal: Journal,
    scope: str,
) -> int:
    """Write down what was written about some documents, in `seconds` each; return how many tokens that took.

    Args:
        jobs: the documents.
        samples: what was written about each.
        read: returns the text of tokens.
        seconds: that one document took.
        journal: where it is written down.
        scope: of the journal, whose spending it adds to.
    """
    spent = 0
    for job, drawn in zip(jobs, samples, strict=True):
        claim = journal.claim(job.request.id, Spending(1), Budget(), scope)
        if claim.attempt is None:  # another process has written the same
            continue
        written = [
            {
                "text": read(sample.tokens),
                "log_probability": round(sample.log_probability, 4),
                "finished": sample.finished,
            }
            for sample in drawn
        ]
        tokens = len(job.prompt.tokens) + sum(len(sample.tokens) for sample in drawn)
        text = json.dumps(written, ensure_ascii=False)
        journal.record(claim.attempt, scope, "answered", "answered", text, Spending(1, tokens), seconds)
        spent += tokens
    return spent


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
    log.warning("memory is short for %d documents at once; continuing with half of them", len(jobs))
    middle = len(jobs) // 2
    yield from within_memory(decoding, jobs[:middle], sampling)
    yield from within_memory(decoding, jobs[middle:], sampling)


def _is_out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in said or "out of memory" in said
    )
