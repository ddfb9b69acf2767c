"""Which weights are kept, by measurements that differ by chance and by measurements that do not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
from torch import nn
from torch.utils.data import Dataset

from embfit.model import Encoder
from embfit.records import DevQuality
from embfit.training.fit.plan import DevChange
from embfit.training.fit.validation import Validation, warn_of_chance
from embfit.training.ranks.collectives import Ranks
from embfit.training.step.full_state import FullState
from embfit.training.step.module import TrainingModule

QUERIES = 80
BASE = np.linspace(0.3, 1.0, QUERIES)
NOISE = np.where(np.arange(QUERIES) % 2, 0.2, -0.2)  # no mean, and a standard error of 0.022


class Module(TrainingModule):
    """As much of a module as a validation asks for."""

    def __init__(self, encoder: Encoder) -> None:
        pl.LightningModule.__init__(self)
        self.encoder = encoder
        self.full = FullState(encoder, nn.Identity(), Ranks(), "fp32")

    def between_steps(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Nothing is pending."""
        return nullcontext()

    def log_numbers(self, step: int, numbers: object) -> None:
        """Nobody reads it."""

    def epoch_batches(self) -> Dataset[Any]:
        """No step is run."""
        raise NotImplementedError


def measured(values: np.ndarray) -> DevQuality:
    return DevQuality({"ndcg@10": float(values.mean())}, values.tolist())


@pytest.fixture
def validated(make_encoder: Callable[..., Encoder], tmp_path: Path) -> Callable[..., Validation]:
    """Return a validation after measurements of these values of each query, ten steps apart."""

    def run(*measurements: np.ndarray, patience: int | None = None, min_gain: float = 0.0) -> Validation:
        found = iter(map(measured, measurements))
        steps = [10 * number for number in range(1, len(measurements))]
        validation = Validation(lambda encoder: next(found), steps, patience, min_gain, tmp_path)
        module = Module(make_encoder())
        trainer: Any = type("Trainer", (), {"global_step": 0, "should_stop": False})()
        validation.on_train_start(trainer, module)
        for step in steps:
            if trainer.should_stop:
                break
            trainer.global_step = step
            validation.on_train_batch_end(trainer, module, None, None, 0)
        assert validation.weights.is_file()
        return validation

    return run


def test_of_steps_that_cannot_be_told_apart_the_last_is_kept(validated: Callable[..., Validation]) -> None:
    found = validated(BASE, BASE - 0.004 + NOISE, BASE - 0.003 - NOISE)  # lower means than before training, by chance
    assert found.kept_step == 20
    assert found.change is not None
    assert (found.change.queries, found.change.difference) == (QUERIES, pytest.approx(-0.003))
    half = 1.9905 * 0.2 * (QUERIES / (QUERIES - 1)) ** 0.5 / QUERIES**0.5  # Student's t of 79 degrees of freedom
    assert found.change.bounds == pytest.approx((-0.003 - half, -0.003 + half), abs=1e-5)


def test_the_base_is_kept_where_training_is_worse_beyond_chance(validated: Callable[..., Validation]) -> None:
    found = validated(BASE, BASE - 0.1 + NOISE, BASE - 0.05 - NOISE)
    assert (found.kept_step, found.change) == (0, None)


def test_a_step_that_is_worse_than_the_best_is_not_kept(validated: Callable[..., Validation]) -> None:
    found = validated(BASE, BASE + 0.1 + NOISE, BASE + 0.09 - NOISE, BASE + 0.02 + NOISE)
    assert found.kept_step == 20  # the third is above the base, and 0.08 below the first with its very noise


def test_many_small_declines_do_not_lead_far_below_the_best(validated: Callable[..., Validation]) -> None:
    falling = [BASE + 0.1 + (NOISE if number % 2 else -NOISE) - 0.03 * number for number in range(6)]
    found = validated(BASE, *falling)
    assert found.kept_step == 20  # 0.03 below the best may be chance; 0.06 with its very noise and 0.09 may not
    assert [entry["step"] for entry in found.history] == [0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_few_queries_choose_nothing(validated: Callable[..., Validation], queries: int) -> None:
    values = np.linspace(0.2, 0.9, queries)
    noise = np.where(np.arange(queries) % 2, -0.2, 0.1)
    found = validated(values, values + noise, values - noise / 2)
    assert found.kept_step == 20


def test_noise_does_not_end_a_training_and_decline_does(validated: Callable[..., Validation]) -> None:
    noisy = [BASE - 0.005 + (NOISE if number % 2 else -NOISE) for number in range(6)]
    assert not validated(BASE + 0.0, *noisy, patience=1).stopped_early
    fallen = validated(BASE, BASE + 0.1, BASE + 0.05 + NOISE / 4, BASE + 0.04 - NOISE / 4, BASE + 0.2, patience=2)
    assert fallen.stopped_early
    assert [entry["step"] for entry in fallen.history] == [0, 10, 20, 30]
    assert fallen.kept_step == 10


def test_a_gain_that_is_shown_to_be_too_small_is_none(validated: Callable[..., Validation]) -> None:
    small = [BASE + 0.001 * number for number in range(5)]
    assert validated(*small, patience=2, min_gain=0.01).stopped_early
    assert not validated(*small, patience=2, min_gain=0.0).stopped_early


def test_state_is_all_that_a_choice_depends_on(validated: Callable[..., Validation], tmp_path: Path) -> None:
    first = validated(BASE, BASE + 0.1, BASE + 0.05, patience=5)
    again = Validation(first.validate, [], 5, 0.0, tmp_path)
    again.restore(first.state())
    assert again.state() == first.state()
    assert (again.weights, again.change) == (first.weights, first.change)
    (tmp_path / "kept-0.safetensors").touch()
    again.remove_other_weights()
    assert [path.name for path in tmp_path.iterdir()] == ["kept-10.safetensors"]


@pytest.mark.parametrize(
    ("change", "level"),
    [
        (DevChange(80, 0.002, (-0.02, 0.024)), logging.INFO),
        (DevChange(5, 0.1, (-0.2, 0.4)), logging.WARNING),
        (DevChange(1, 0.5, None), logging.WARNING),
        (DevChange(80, 0.1, (0.05, 0.15)), None),
        (DevChange(80, -0.1, (-0.15, -0.05)), None),
        (None, None),
    ],
)
def test_what_the_dev_split_cannot_tell_is_said(
    change: DevChange | None, level: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "embfit"):
        warn_of_chance(change)
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])
    if level is not None:
        assert f"on {cast(DevChange, change).queries} queries" in caplog.text
