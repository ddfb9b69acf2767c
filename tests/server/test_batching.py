"""The batcher: what goes together, who waits for whom, and that one bad text, or one bad thread, hurts nobody else."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import wait

import numpy as np
import pytest

from embfit.model import Encoder
from embfit.server.batch_models import NotFiniteError, TextBatches, split
from embfit.server.batching import Batcher, BatchFacts, QueueFullError, StoppedError, TextError
from embfit.server.metrics import Metrics
from tests.conftest import TEXTS
from tests.server.conftest import until


class Recorder:
    """Doubles numbers, and waits at each batch for leave to go on; 13 cannot be computed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def compute(self, contents: Sequence[int]) -> list[int]:
        self.batches.append(list(contents))
        self.begun.release()
        assert self.leave.acquire(timeout=20)
        if 13 in contents:
            raise ValueError("13 is unlucky")
        return [2 * number for number in contents]

    def go(self) -> None:
        """Let everything go on."""
        self.leave.release(10_000)


@pytest.fixture
def facts() -> list[BatchFacts]:
    return []


@pytest.fixture
def batcher(facts: list[BatchFacts]) -> Iterator[Batcher]:
    batcher = Batcher(token_budget=100, capacity=50, observe=facts.append)
    yield batcher
    batcher.close(20)


def busy(batcher: Batcher, model: Recorder) -> None:
    """Give the model a text that it is at work on."""
    batcher.submit(model, [0], [1])
    assert model.begun.acquire(timeout=20)


def test_what_waits_goes_together(batcher: Batcher, facts: list[BatchFacts]) -> None:
    model = Recorder()
    busy(batcher, model)
    jobs = [batcher.submit(model, [number], [10]) for number in (1, 2, 3)]
    model.go()
    assert [job.future.result(20) for job in jobs] == [[2], [4], [6]]
    assert model.batches == [[0], [1, 2, 3]]
    batcher.close(20)
    assert [(found.texts, found.tokens, found.padded) for found in facts] == [(1, 1, 1), (3, 30, 30)]


def test_a_job_that_ended_does_not_hold_its_model(batcher: Batcher) -> None:
    model = Recorder()
    model.go()
    left = weakref.ref(model)
    gc.collect()
    gc.disable()  # what is in a circle would stay, and be found thousands of requests later
    try:
        jobs = [batcher.submit(model, [number], [10]) for number in (1, 2)]
        kept = [job.future for job in jobs]
        assert [future.result(20) for future in kept] == [[2], [4]]
        del model, jobs
        until(lambda: left() is None)
    finally:
        gc.enable()


def test_batches_keep_the_budget_and_like_lengths(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    # 60 is the first; of like length (30 to 120) are 50 and 40, and only one has room beside it: 2 x 60 > 100
    first = batcher.submit(model, [60, 50, 40, 5, 6], [60, 50, 40, 5, 6])
    model.go()
    assert first.future.result(20) == [120, 100, 80, 10, 12]
    assert model.batches[1:] == [[60], [50, 40], [6, 5]]


def test_one_text_does_not_wait_for_a_long_request(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    long = batcher.submit(model, [*range(100, 120)], [50] * 20)
    model.leave.release()
    assert model.begun.acquire(timeout=20)  # the first two of the long request
    short = batcher.submit(model, [1], [50])
    model.go()
    short.future.result(20)
    long.future.result(20)
    assert model.batches[1] == [100, 101]
    assert 1 in model.batches[2]


def test_background_waits_for_all_others(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    aside = batcher.submit(model, [9], [10], background=True)
    live = batcher.submit(model, [1, 2], [10, 10])
    model.go()
    wait([aside.future, live.future], 20)
    assert model.batches[1:] == [[1, 2], [9]]


def test_models_are_not_mixed(batcher: Batcher) -> None:
    old, new = Recorder(), Recorder()
    busy(batcher, old)
    jobs = [batcher.submit(model, [number], [5]) for model, number in ((old, 1), (new, 2), (old, 3), (new, 4))]
    old.go()
    new.go()
    assert [job.future.result(20) for job in jobs] == [[2], [4], [6], [8]]
    assert (old.batches, new.batches) == ([[0], [1, 3]], [[2, 4]])


def test_one_bad_text_fails_alone(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    jobs = [batcher.submit(model, [number], [5]) for number in (1, 2, 13, 4, 5)]
    model.go()
    for job, expected in zip(jobs, (2, 4, None, 8, 10), strict=True):
        if expected is None:
            with pytest.raises(TextError, match="text 0: 13 is unlucky"):
                job.future.result(20)
        else:
            assert job.future.result(20) == [expected]
    assert batcher.submit(model, [7], [5]).future.result(20) == [14]
    assert batcher.waiting == 0


def test_the_rest_of_a_failed_request_is_dropped(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    job = batcher.submit(model, [13, *range(20, 30)], [100] * 11)
    model.go()
    with pytest.raises(TextError):
        job.future.result(20)
    batcher.submit(model, [1], [1]).future.result(20)
    assert (model.batches, batcher.waiting) == ([[0], [13], [1]], 0)


def test_who_has_gone_is_dropped_and_makes_room(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    gone = batcher.submit(model, [*range(50)], [1] * 50)
    with pytest.raises(QueueFullError) as full:
        batcher.submit(model, [1], [1])
    assert full.value.waiting == 50
    assert gone.future.cancel()
    assert batcher.waiting == 0
    stays = batcher.submit(model, [7], [1])
    model.go()
    assert stays.future.result(20) == [14]
    assert model.batches == [[0], [7]]


def test_it_stops_when_all_is_done(batcher: Batcher) -> None:
    model = Recorder()
    busy(batcher, model)
    jobs = [batcher.submit(model, [number], [60]) for number in range(1, 6)]
    model.go()
    assert batcher.close(20)
    assert [job.future.result(0) for job in jobs] == [[2], [4], [6], [8], [10]]
    with pytest.raises(StoppedError, match="stopping"):
        batcher.submit(model, [1], [1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_ended(batcher: Batcher) -> None:
    class Broken(Recorder):
        def compute(self, contents: Sequence[int]) -> list[int]:
            super().compute(contents)
            raise SystemExit("no exception that a batch may have")

    model = Broken()
    computed = batcher.submit(model, [0], [1])
    assert model.begun.acquire(timeout=20)
    waits = batcher.submit(model, [1], [1])
    model.go()
    for job in (computed, waits):
        with pytest.raises(StoppedError, match="thread has ended"):
            job.future.result(20)
    batcher._thread.join(20)
    assert not batcher.alive
    with pytest.raises(StoppedError):
        batcher.submit(model, [1], [1])


def test_a_text_without_tokens_does_not_end_the_thread() -> None:
    metrics, model = Metrics(), Recorder()  # an empty text, and a tokenizer that adds no special tokens
    model.go()
    batcher = Batcher(token_budget=100, capacity=50, observe=metrics.observe_batch)
    try:
        assert batcher.submit(model, [1], [0]).future.result(20) == [2]
        assert batcher.submit(model, [4], [3]).future.result(20) == [8]
    finally:
        batcher.close(20)
    assert metrics.registry.get_sample_value("embfit_batch_padding_ratio_sum") == 0
    assert metrics.registry.get_sample_value("embfit_batch_padding_ratio_count") == 2


def test_vectors_of_a_batch_are_those_of_the_encoder(tiny_encoder: Encoder) -> None:
    model = TextBatches(tiny_encoder)
    tokens = tiny_encoder.tokenize(TEXTS * 20, "document")
    found = model.joined(tokens, model.compute(split(tokens)))
    np.testing.assert_allclose(found.rows, tiny_encoder.encode(TEXTS * 20, "document"), atol=1e-6)


def test_a_vector_that_is_not_finite_fails_alone(
    batcher: Batcher, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TextBatches(tiny_encoder)
    tokens = tiny_encoder.tokenize(TEXTS[:4], "query")
    sick = split(tokens)[2].ids
    plain = tiny_encoder.forward

    def forward(ids, mask, bf16=False):
        rows = plain(ids, mask, bf16)
        rows[(ids[:, : len(sick)].numpy() == sick[: ids.shape[1]]).all(axis=1)] = float("nan")
        return rows

    monkeypatch.setattr(tiny_encoder, "forward", forward)
    jobs = [batcher.submit(model, [text], [len(text.ids)]) for text in split(tokens)]
    for place, job in enumerate(jobs):
        if place == 2:
            with pytest.raises(TextError) as failed:
                job.future.result(20)
            assert isinstance(failed.value.cause, NotFiniteError)
        else:
            assert np.isfinite(job.future.result(20)[0]).all()
