"""The jobs of a local model: batching them, sharing them with other processes, and recording their queries."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from embfit.generator.budget import Budget, Spending
from embfit.generator.decoding import Decodes, Prompt
from embfit.generator.journal import Journal
from embfit.generator.plan import QueryRequest
from embfit.generator.sampling import Sample, Sampling
from embfit.progress import Advance

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between looks at what other processes have written


@dataclass(frozen=True)
class WritingJob:
    """A request, tokenised for the model.

    Args:
        request: the request, as the journal knows it.
        prefix: the tokens that all prompts of its kind begin with; a causal model reads them once.
        prompt: the tokens after the prefix.
        attempt: the journal's number for this process's attempt; None until the process has claimed the request.
    """

    request: QueryRequest
    prefix: tuple[int, ...]
    prompt: Prompt
    attempt: int | None = None

    @property
    def count(self) -> int:
        """The number of queries."""
        return self.request.entry.count


def batches(jobs: Sequence[WritingJob], size: int) -> Iterator[list[WritingJob]]:
    """Yield batches of jobs with the same number of queries, longest prompts first, so that memory runs out early."""
    ordered = sorted(jobs, key=lambda job: (job.count, len(job.prompt.tokens)), reverse=True)
    batch: list[WritingJob] = []
    for job in ordered:
        if batch and (job.count != batch[0].count or len(batch) == size):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def claim_jobs(jobs: Sequence[WritingJob], journal: Journal, scope: str) -> tuple[list[WritingJob], list[WritingJob]]:
    """Claim jobs for this process; return the claimed ones, and those that another process is writing.

    Jobs that have been answered in the meantime are in neither list.

    Args:
        jobs: the jobs to claim.
        journal: records which process has claimed which request.
        scope: identifies the data set in the journal, which is charged for the requests.
    """
    claimed, elsewhere = [], []
    for job in jobs:
        claim = journal.claim(job.request.id, Spending(1), Budget(), scope)
        if claim.attempt is not None:
            claimed.append(replace(job, attempt=claim.attempt))
        elif claim.state == "sent":
            elsewhere.append(job)
    return claimed, elsewhere


def wait_for_others(
    jobs: Sequence[WritingJob], journal: Journal, advance: Advance
) -> tuple[list[WritingJob], list[WritingJob]]:
    """Wait until other processes have written all of their jobs, or until one of them ends early.

    Args:
        jobs: the jobs that other processes are writing.
        journal: has their states; it is read only after another process has changed it.
        advance: is called with the number of jobs that were written.

    Returns:
        The jobs that no process is writing now, and those that are still being written. Both lists are empty when all
        jobs are written.
    """
    elsewhere, seen = list(jobs), None
    while elsewhere:
        released, version = journal.release_lost(), journal.version
        if released or version != seen:
            seen = version
            states = [(job, journal.answer(job.request.entry).state) for job in elsewhere]
            free = [job for job, state in states if state == "planned"]
            elsewhere = [job for job, state in states if state == "sent"]
            if there := len(states) - len(free) - len(elsewhere):
                advance(there)
            if free or not elsewhere:
                return free, elsewhere
        time.sleep(POLL_SECONDS)
    return [], []


def record(
    jobs: Sequence[WritingJob],
    samples: Sequence[Sequence[Sample]],
    read: Callable[[Sequence[int]], str],
    seconds: float,
    journal: Journal,
    scope: str,
) -> int:
    """Record the answers to some jobs in the journal; return the number of tokens that were read and written.

    Args:
        jobs: the jobs, which this process has claimed.
        samples: the samples of each job.
        read: turns tokens into text.
        seconds: the time that each job took.
        journal: the journal.
        scope: identifies the data set in the journal, which is charged for the tokens.
    """
    spent = 0
    for job, drawn in zip(jobs, samples, strict=True):
        if job.attempt is None:
            raise ValueError(f"request {job.request.id} was not claimed before it was written")
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
        journal.record(job.attempt, scope, "answered", "answered", text, Spending(1, tokens), seconds)
        spent += tokens
    return spent


def within_memory(
    decoding: Decodes, jobs: list[WritingJob], sampling: Sampling
) -> Iterator[tuple[list[WritingJob], list[list[Sample]]]]:
    """Yield jobs with their samples; if memory runs out, try half of the jobs at a time, then half of that.

    Raises:
        RuntimeError: there is not enough memory for one job.
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
