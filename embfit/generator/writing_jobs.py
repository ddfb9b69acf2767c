"""Batches of documents that a local model writes about, as large as memory allows, and the record of its queries."""

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

ELSEWHERE = 1.0  # seconds between two checks of other processes' progress


@dataclass(frozen=True)
class WritingJob:
    """A request with its prompt.

    Args:
        request: the request, as the journal records it.
        prompt: the tokens that the model reads.
        attempt: the journal's number of the attempt; None before this process has claimed the request.
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
    """Yield batches of equal numbers of queries and similar lengths, the longest first, to run out of memory early."""
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

    Jobs that have been written since they were planned are in neither.

    Args:
        jobs: the documents.
        journal: records which documents are written about.
        scope: identifies the data set, to which the journal adds the spending.
    """
    claimed, elsewhere = [], []
    for job in jobs:
        claim = journal.claim(job.request.id, Spending(1), Budget(), scope)
        if claim.attempt is not None:
            claimed.append(replace(job, attempt=claim.attempt))
        elif claim.state == "sent":
            elsewhere.append(job)
    return claimed, elsewhere


def wait_for_others(jobs: Sequence[WritingJob], journal: Journal) -> list[QueryRequest]:
    """Wait until another process has written one of the jobs or has ended; return the requests of all the jobs."""
    requests = [job.request for job in jobs]
    if requests:
        log.info("another process is writing about %d documents; waiting for it", len(requests))
    while requests:
        journal.release_lost()
        if any(journal.answer(request.entry).state != "sent" for request in requests):
            break
        time.sleep(ELSEWHERE)
    return [], []


def record(
    jobs: Sequence[WritingJob],
    samples: Sequence[Sequence[Sample]],
    read: Callable[[Sequence[int]], str],
    seconds: float,
    journal: Journal,
    scope: str,
) -> int:
    """Record the queries about some documents in the journal, and return the number of tokens read and written.

    Args:
        jobs: the documents, which this process has claimed.
        samples: the samples of each.
        read: returns the text of tokens.
        seconds: the time that one document took.
        journal: the journal.
        scope: identifies the data set, to which the journal adds the spending.
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
    """Yield jobs with their samples; if memory is short, in halves, and if necessary in halves of those.

    Raises:
        RuntimeError: there is not enough memory for a single job.
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
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return "allocate memory" in message or "out of memory" in message
