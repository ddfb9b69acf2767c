"""What loggers are given: every number at the step that it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from datasets import Dataset
from pytorch_lightning.loggers.logger import DummyLogger

from embfit.loss import InfoNCE
from embfit.model import Encoder
from embfit.records import Collection, DevQuality, TrainingSet
from embfit.store import Store
from embfit.training import Training
from embfit.training.step import metrics
from embfit.training.step.schedule import learning_rate_share
from tests.conftest import steady


class Log(DummyLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[int, Mapping[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.given.append((step, metrics))

    def of(self, name: str) -> dict[int, float]:
        return {step: metrics[name] for step, metrics in self.given if name in metrics}


@pytest.fixture
def logged(
    make_encoder: Callable[..., Encoder], small_collection: Collection, store: Store, tmp_path: Path
) -> Callable[..., Log]:
    """Train for six steps, two an epoch, and return what was logged."""
    rows = [
        {"query": row, "positives": [row], "negatives": [], "scores": [], "weight": 1.0, "source": "x"}
        for row in range(8)
    ]
    examples = TrainingSet(small_collection, Dataset.from_list(rows), {})

    def train(
        every: int, scores: Mapping[int, float], wait: Callable[[], None] = lambda: None, **settings: object
    ) -> Log:
        log, values = Log(), iter(scores.values())

        def validate(encoder: Encoder) -> DevQuality:
            wait()
            return steady(next(values))

        trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=log, log_every_n_steps=every)
        training = Training(batch_size=4, lr=1e-3, epochs=3, precision="fp32", patience=None, **settings)
        training.fit(make_encoder(), InfoNCE(), examples, validate, trainer, store, tmp_path)
        return log

    return train


@pytest.mark.parametrize("every", [1, 2, 50])
def test_validations_are_logged_at_their_steps(logged: Callable[..., Log], every: int) -> None:
    scores = {0: 0.1, 2: 0.2, 4: 0.4, 6: 0.3}
    log = logged(every, scores)
    assert log.of("dev/ndcg@10") == scores
    assert list(log.of("train/loss")) == [step for step in range(1, 7) if step % every == 0]


def test_a_run_that_goes_on_logs_where_it_is(logged: Callable[..., Log]) -> None:
    logged(1, {0: 0.1, 2: 0.2, 4: 0.4, 6: 0.3}, checkpoint_every=4)
    log = logged(1, {6: 0.5}, checkpoint_every=4)
    assert log.of("dev/ndcg@10") == {6: 0.5}
    assert list(log.of("train/loss")) == [5, 6]


def test_the_rate_logged_is_the_one_that_moved_the_weights(logged: Callable[..., Log]) -> None:
    rates = logged(1, dict.fromkeys(range(4), 0.0)).of("train/lr")
    expected = {step + 1: 1e-3 * learning_rate_share(step, 6, 0.1, "linear") for step in range(6)}
    assert rates == pytest.approx(expected)


def test_a_validation_is_no_part_of_a_steps_time(logged: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    passed = iter(range(1_000_000))  # each look at the clock is a second after the one before
    clock = {"validations": 0.0}
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: next(passed) + clock["validations"]))

    def wait() -> None:
        clock["validations"] += 1_000.0

    log = logged(1, dict.fromkeys(range(7), 0.0), wait, validations_per_epoch=2)
    assert set(log.of("train/pairs").values()) == {4.0}
    assert set(log.of("train/pairs_per_second").values()) == {4.0}
