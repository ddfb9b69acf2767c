"""Dynamic batching: when the model is free, it takes the most urgent waiting text and others of similar length.

There is no waiting window: a text that arrives while the model is free is computed at once, and batches grow with
the load. Three rules keep one request from delaying or breaking another:

- Fair queueing by tokens (Goyal, Vin and Cheng 1996, "Start-time Fair Queueing"): each text of a request is as urgent
  as the tokens before it in that request, so one query does not wait for another request's thousand documents.
- If a batch fails, it is halved until only the text that causes the failure fails.
- Texts whose client has disconnected are dropped.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

log = logging.getLogger(__name__)

CANDIDATES = 256  # waiting texts among which a batch is chosen by length
SHORT = 16  # tokens by which the texts of a batch may always differ
SMOOTHING = 0.9  # weight of earlier batches in the average speed


class BatchModel(Protocol):
    """Computes a batch and returns all of its results, or raises an exception."""

    def compute(self, contents: Sequence[Any]) -> Sequence[Any]:
        """Return the result of each text, or of each pair of texts."""
        ...


class TextError(Exception):
    """One text of a job cannot be computed.

    Args:
        place: the text's place in the job, from 0.
        cause: what the model raised.
    """

    def __init__(self, place: int, cause: Exception) -> None:
        super().__init__(f"text {place}: {cause}")
        self.place = place
        self.cause = cause


class QueueFullError(Exception):
    """The queue has no room for a job.

    Args:
        waiting: the number of texts in the queue.
        seconds: how long it will take to compute them.
    """

    def __init__(self, waiting: int, seconds: float) -> None:
        super().__init__(f"{waiting} texts wait")
        self.waiting = waiting
        self.seconds = seconds


class StoppedError(Exception):
    """The batcher accepts no more jobs, or cannot finish this one."""


@dataclass(eq=False)
class Job:
    """The texts of one request.

    Args:
        model: computes the texts.
        results: the results so far, by text.
        waiting: how many of the texts are still in the queue.
        future: gets the results at the end; cancelling it drops the texts in the queue.
        submitted: when the texts arrived (`time.monotonic`).
        queue_seconds: how long the first text waited.
        inference_seconds: how long the batches with these texts took.
    """

    model: BatchModel
    results: list[Any]
    waiting: int
    future: Future[list[Any]] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    queue_seconds: float = -1.0
    inference_seconds: float = 0.0
    _missing: int = field(init=False)

    def __post_init__(self) -> None:
        self._missing = len(self.results)

    def finish(self, place: int, result: Any) -> None:
        """Record the result of one text."""
        self.results[place] = result
        self._missing -= 1
        if not self._missing:
            with suppress(InvalidStateError):  # cancelled
                self.future.set_result(self.results)

    def fail(self, error: Exception) -> None:
        """End the job with an error, unless it has ended already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class BatchFacts:
    """The size of a batch and the time that it took.

    Args:
        texts: number of texts.
        tokens: number of tokens without padding.
        padded: number of tokens with padding.
        seconds: how long the batch took.
    """

    texts: int
    tokens: int
    padded: int
    seconds: float


@dataclass(frozen=True, order=True)
class _Item:
    """A text in the queue; texts with lower values are more urgent."""

    background: bool
    start: float  # the queue's clock when the request came, plus the request's tokens before this text
    number: int
    length: int = field(compare=False)
    place: int = field(compare=False)
    content: Any = field(compare=False)
    job: Job = field(compare=False)


class Batcher:
    """A queue of texts, and the single thread that runs the models.

    Args:
        token_budget: the largest number of padded tokens in a batch.
        capacity: the largest number of texts in the queue.
        observe: is called with each batch's size and time, on the batcher's thread.
    """

    def __init__(
        self, token_budget: int, capacity: int, observe: Callable[[BatchFacts], None] = lambda facts: None
    ) -> None:
        self.token_budget = token_budget
        self.capacity = capacity
        self._observe = observe
        self._heap: list[_Item] = []
        self._numbers = itertools.count()
        self._clock = 0.0  # in tokens: the start of the text that was taken last
        self._waiting = 0
        self._tokens = 0
        self._speed = 0.0  # padded tokens a second; 0 before the first batch
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="embfit-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """The number of texts in the queue."""
        return self._waiting

    def submit(
        self, model: BatchModel, contents: Sequence[Any], lengths: Sequence[int], background: bool = False
    ) -> Job:
        """Put the texts of a request into the queue, without waiting.

        Args:
            model: computes the texts; a batch holds texts of one model only.
            contents: what the model receives for each text.
            lengths: the number of tokens of each text.
            background: whether to compute the texts only while nothing else waits.

        Raises:
            QueueFullError: the queue has no room for the texts.
            StoppedError: the batcher has been closed, or its thread has ended.
        """
        job = Job(model, [None] * len(contents), len(contents))
        if not contents:
            job.future.set_result([])
            return job
        with self._changed:
            if self._closing or not self.alive:
                raise StoppedError("the server is stopping" if self._closing else "the model's thread has ended")
            if self._waiting + len(contents) > self.capacity:
                raise QueueFullError(self._waiting, self._seconds())
            start = self._clock
            for place, (content, length) in enumerate(zip(contents, lengths, strict=True)):
                heapq.heappush(self._heap, _Item(background, start, next(self._numbers), length, place, content, job))
                start += length
            self._waiting += len(contents)
            self._tokens += sum(lengths)
            self._changed.notify()
        # a callback that referred to the job would keep its model in memory until the next cycle collection
        job.future.add_done_callback(partial(self._forget, weakref.ref(job)))
        return job

    def close(self, timeout: float | None = None) -> bool:
        """Accept no more jobs, finish those in the queue and end the thread; return whether it ended in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self.alive

    def _work(self) -> None:
        batch: list[_Item] = []
        try:
            while batch := self._take():
                self._run(batch)
                batch = []  # do not keep a replaced model in memory until the next text arrives
        finally:  # whatever ended the thread, no caller must wait forever
            with self._changed:
                left, self._heap = self._heap, []
            for item in (*batch, *left):
                item.job.fail(StoppedError("the model's thread has ended"))

    def _take(self) -> list[_Item]:
        """Wait for texts and return a batch; it is empty when the batcher is closed and the queue is empty."""
        with self._changed:
            while True:
                if (head := self._pop()) is not None:
                    break
                if self._closing:
                    return []
                self._changed.wait()
            self._clock = max(self._clock, head.start)
            alike: list[_Item] = []
            others: list[_Item] = []
            while len(alike) + len(others) < CANDIDATES and (item := self._pop()) is not None:
                fits = item.job.model is head.job.model and item.background == head.background
                (alike if fits else others).append(item)
            batch, rest = _similar_in_length(head, alike, self.token_budget)
            for item in (*others, *rest):
                heapq.heappush(self._heap, item)
            now = time.monotonic()
            for item in batch:
                item.job.waiting -= 1
                self._waiting -= 1
                self._tokens -= item.length
                if item.job.queue_seconds < 0:
                    item.job.queue_seconds = now - item.job.submitted
            return batch

    def _pop(self) -> _Item | None:
        """Return the most urgent text of a job that has not ended."""
        while self._heap:
            item = heapq.heappop(self._heap)
            if not item.job.future.done():
                return item
            self._tokens -= item.length
        return None

    def _run(self, batch: Sequence[_Item]) -> None:
        lengths = [item.length for item in batch]
        padded = max(lengths) * len(batch)
        started = time.monotonic()
        self._compute(batch)
        seconds = time.monotonic() - started
        speed = padded / max(seconds, 1e-6)
        self._speed = speed if not self._speed else SMOOTHING * self._speed + (1 - SMOOTHING) * speed
        self._observe(BatchFacts(len(batch), sum(lengths), padded, seconds))

    def _compute(self, batch: Sequence[_Item]) -> None:
        """Compute a batch; if it fails, compute its halves."""
        started = time.monotonic()
        try:
            results = batch[0].job.model.compute([item.content for item in batch])
        except Exception as error:
            if len(batch) > 1:
                log.warning("a batch of %d texts failed (%s); its halves are computed", len(batch), error)
                self._compute(batch[: len(batch) // 2])
                self._compute(batch[len(batch) // 2 :])
            else:
                batch[0].job.fail(TextError(batch[0].place, error))
            return
        seconds = time.monotonic() - started
        for job in {item.job for item in batch}:
            job.inference_seconds += seconds
        for item, result in zip(batch, results, strict=True):
            item.job.finish(item.place, result)

    def _forget(self, ended: weakref.ref[Job], future: Future[list[Any]]) -> None:
        """Stop counting an ended job's texts as waiting; they stay in the heap until they are taken."""
        job = ended()
        if job is None:
            return
        with self._changed:
            self._waiting -= job.waiting
            job.waiting = 0

    def _seconds(self) -> float:
        """Return how many seconds the queue will take; 1 before the first batch."""
        return self._tokens / self._speed if self._speed else 1.0


def _similar_in_length(head: _Item, others: Sequence[_Item], budget: int) -> tuple[list[_Item], list[_Item]]:
    """Choose the texts that join the most urgent one: those nearest in length, none twice as long as another.

    Returns:
        The batch, longest text first, and the remaining texts.
    """
    shortest = longest = head.length
    batch, rest = [head], []
    for item in sorted(others, key=lambda item: (abs(item.length - head.length), item)):
        low, high = min(shortest, item.length), max(longest, item.length)
        if high * (len(batch) + 1) <= budget and high <= max(2 * low, low + SHORT):
            batch.append(item)
            shortest, longest = low, high
        else:
            rest.append(item)
    return sorted(batch, key=lambda item: -item.length), rest
