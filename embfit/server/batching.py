"""Batches of what waits: when the model is free, it takes the most urgent text and those of like length beside it.

There is no window: a text that comes while the model is free is computed at once, and batches grow by themselves with
the load. Three rules keep one request from hurting another:

- Fair queueing by tokens (Goyal, Vin and Cheng 1996, "Start-time Fair Queueing"): each text of a request is as urgent
  as the tokens before it in that request, so one query does not wait for another request's thousand documents.
- Where a batch cannot be computed it is halved, until the text that is to blame fails alone.
- Texts whose client has gone are dropped.
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

LOOKED_AT = 256  # waiting texts among which those of like length are looked for
SHORT = 16  # tokens that texts of one batch may differ by however short they are
FORGETTING = 0.9  # of the speed that was measured before


class BatchModel(Protocol):
    """Computes batches, each of them whole or, with an exception, not at all."""

    def compute(self, contents: Sequence[Any]) -> Sequence[Any]:
        """Return what each of some texts, or pairs of texts, gives."""
        ...


class TextError(Exception):
    """One text of a job cannot be computed.

    Args:
        place: which of the job's texts, from 0.
        cause: what the model raised.
    """

    def __init__(self, place: int, cause: Exception) -> None:
        super().__init__(f"text {place}: {cause}")
        self.place = place
        self.cause = cause


class QueueFullError(Exception):
    """There is no room for a job.

    Args:
        waiting: how many texts wait.
        seconds: that computing them will take.
    """

    def __init__(self, waiting: int, seconds: float) -> None:
        super().__init__(f"{waiting} texts wait")
        self.waiting = waiting
        self.seconds = seconds


class StoppedError(Exception):
    """The batcher takes no more jobs, or cannot finish this one."""


@dataclass(eq=False)
class Job:
    """The texts of one request.

    Args:
        model: computes them.
        results: what each gives, as far as they are computed.
        waiting: how many are in the queue.
        future: has the results in the end; cancelling it drops what waits.
        submitted: when they came, by the monotonic clock.
        queue_seconds: until the model took the first of them.
        inference_seconds: of the batches that they were in.
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
        """Take the result of one text."""
        self.results[place] = result
        self._missing -= 1
        if not self._missing:
            with suppress(InvalidStateError):  # cancelled
                self.future.set_result(self.results)

    def fail(self, error: Exception) -> None:
        """End with an error, unless it has ended."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class BatchFacts:
    """The size of a batch, and the time that it took.

    Args:
        texts: how many.
        tokens: of all, without padding.
        padded: of all, with padding.
        seconds: that it took.
    """

    texts: int
    tokens: int
    padded: int
    seconds: float


@dataclass(frozen=True, order=True)
class _Item:
    """A text in the queue: the lowest is the most urgent."""

    background: bool
    start: float  # tokens of its request before it, counted from where the queue stood when that came
    number: int
    length: int = field(compare=False)
    place: int = field(compare=False)
    content: Any = field(compare=False)
    job: Job = field(compare=False)


class Batcher:
    """A queue of texts, and the one thread on which models compute them.

    Args:
        token_budget: padded tokens of a batch.
        capacity: texts that may wait.
        observe: is told of each batch, on the batcher's thread.
    """

    def __init__(
        self, token_budget: int, capacity: int, observe: Callable[[BatchFacts], None] = lambda facts: None
    ) -> None:
        self.token_budget = token_budget
        self.capacity = capacity
        self._observe = observe
        self._heap: list[_Item] = []
        self._numbers = itertools.count()
        self._clock = 0.0  # the start of the text that was taken last
        self._waiting = 0
        self._tokens = 0
        self._speed = 0.0  # padded tokens a second; 0 until a batch was computed
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="embfit-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        return self._waiting

    def submit(
        self, model: BatchModel, contents: Sequence[Any], lengths: Sequence[int], background: bool = False
    ) -> Job:
        """Put the texts of a request into the queue; never waits.

        Args:
            model: computes them; only texts of one model are in a batch.
            contents: what it is given of each text.
            lengths: tokens of each text.
            background: whether they are computed only while nothing else waits.

        Raises:
            QueueFullError: they have no room.
            StoppedError: the batcher was closed, or its thread has ended.
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
        # a future keeps its callbacks: one that held the job would hold its model until circles are looked for
        job.future.add_done_callback(partial(self._forget, weakref.ref(job)))
        return job

    def close(self, timeout: float | None = None) -> bool:
        """Take no more jobs, compute those that wait and end the thread; say whether it ended in time."""
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
                batch = []  # a model that was replaced is not held until the next text comes
        finally:  # whatever ended the thread, nobody waits for it
            with self._changed:
                left, self._heap = self._heap, []
            for item in (*batch, *left):
                item.job.fail(StoppedError("the model's thread has ended"))

    def _take(self) -> list[_Item]:
        """Wait for texts, and return a batch of them; nothing when the batcher is closed and all is done."""
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
            while len(alike) + len(others) < LOOKED_AT and (item := self._pop()) is not None:
                fits = item.job.model is head.job.model and item.background == head.background
                (alike if fits else others).append(item)
            batch, rest = _of_like_length(head, alike, self.token_budget)
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
        self._speed = speed if not self._speed else FORGETTING * self._speed + (1 - FORGETTING) * speed
        self._observe(BatchFacts(len(batch), sum(lengths), padded, seconds))

    def _compute(self, batch: Sequence[_Item]) -> None:
        """Compute a batch, or its halves where it cannot be computed."""
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
        """Make room for what a job that has ended leaves in the queue; what is in the queue holds its job."""
        job = ended()
        if job is None:
            return
        with self._changed:
            self._waiting -= job.waiting
            job.waiting = 0

    def _seconds(self) -> float:
        """Return how long what waits will take; a second where nothing was measured."""
        return self._tokens / self._speed if self._speed else 1.0


def _of_like_length(head: _Item, others: Sequence[_Item], budget: int) -> tuple[list[_Item], list[_Item]]:
    """Choose the batch of the most urgent text: those nearest in length, none twice as long as another.

    Returns:
        The batch, longest text first, and the others.
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
