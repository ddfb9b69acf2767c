"""Documents that a local model writes about at once, as many as memory takes, and the record of what it wrote."""

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

ELSEWHERE = 1.0  # seconds between looks at what other processes have written


@dataclass(frozen=True)
class WritingJob:
    """A request with what the model reads for it.

    Args:
        request: what the journal knows it by.
        prefix: the tokens before every prompt of its kind, which a causal model reads once for all that share them.
        prompt: what the model reads behind it.
        attempt: the number that the journal gave when this process took the request; None before that.
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
    """Yield batches of one number of queries and of like lengths, the longest first: a lack of memory shows at once."""
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
    """Claim jobs for this process; return those that it has now, and those that another process is writing.

    What has been written since the jobs were planned is in neither.

    Args:
        jobs: the documents.
        journal: says which of them nobody writes about.
        scope: identifies the data set in the journal, whose spending they add to.
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
    """Wait until other processes have written all of their jobs, or until one has ended before it wrote its own.

    Args:
        jobs: those that other processes are writing.
        journal: says what has become of them; it is asked only when another process has changed it.
        advance: is told of each job that was written.

    Returns:
        The jobs that nobody is writing now, and those that are still being written; neither, where all are written.
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
    """Write down what was written about some documents, in `seconds` each; return how many tokens that took.

    Args:
        jobs: the documents, which this process has claimed.
        samples: what was written about each.
        read: returns the text of tokens.
        seconds: that one document took.
        journal: where it is written down.
        scope: identifies the data set in the journal, whose spending it adds to.
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
