"""A training that was killed and started again ends as one that was not: to the last bit, on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from embfit.errors import UserError
from embfit.loss import InfoNCE
from embfit.model import Encoder, save_encoder
from embfit.records import DevQuality, TrainingSet
from embfit.store import Store
from embfit.training import Fit, Training
from embfit.training.fit.plan import seconds
from embfit.training.fit.time_limit import TimeLimit
from tests.conftest import TEXTS, new_collection, new_encoder, steady

# 8 examples in batches of 3, 3 and 2: four epochs are twelve steps, and 3, 6, 9 and 12 end one
TRAINING = Training(
    batch_size=3,
    lr=1e-2,
    epochs=4,
    precision="fp32",
    dropout=True,
    token_budget=40,
    max_positives=1,
    patience=None,
    validations_per_epoch=2,
)
SCORES = [0.1, 0.3, 0.2, 0.5, 0.4, 0.45, 0.3, 0.2, 0.1]


class KilledError(Exception):
    """Stands for the end of the process."""


class Kill(pl.Callback):
    """Ends the process after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        if trainer.global_step == self.steps:
            raise KilledError


Train = Callable[..., tuple[Fit, str, float]]


def train_in(
    parent: Path,
    tokenizer: PreTrainedTokenizerFast,
    folder: str,
    kill: int | pl.Callback | None = None,
    training: Training = TRAINING,
    validated: bool = True,
    **settings: object,
) -> tuple[Fit, str, float]:
    """Train a fresh encoder in a folder; return what training did, the weights' fingerprint and the temperature."""
    rows = [
        {"query": row, "positives": [row, row + 1], "negatives": [row + 2], "scores": [], "weight": 1.0, "source": "x"}
        for row in range(8)
    ]
    examples = TrainingSet(new_collection(), Dataset.from_list(rows), {row: frozenset([row]) for row in range(8)})
    encoder, loss = new_encoder(tokenizer, dropout=0.3), InfoNCE(0.05, learn_temperature=True)
    callbacks = [Kill(kill) if isinstance(kill, int) else kill] if kill else []
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False, callbacks=callbacks, **settings)
    (parent / folder).mkdir(exist_ok=True)
    validate = scores(parent / folder) if validated else None
    fit = training.fit(encoder, loss, examples, validate, trainer, Store(parent / "store"), parent / folder)
    return fit, encoder.fingerprint("document"), loss.temperature.item()


@pytest.fixture
def train(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Train:
    """Train in a folder of the test's own."""
    return partial(train_in, tmp_path, tokenizer)


@pytest.fixture(scope="module")
def _wholes(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Training, bool], tuple[Path, tuple[Fit, str, float]]]:
    @cache
    def run(training: Training, validated: bool) -> tuple[Path, tuple[Fit, str, float]]:
        parent = tmp_path_factory.mktemp("whole")
        return parent, train_in(parent, tokenizer, "whole", training=training, validated=validated)

    return run


@pytest.fixture
def whole(_wholes: Callable[[Training, bool], tuple[Path, tuple[Fit, str, float]]], tmp_path: Path) -> Train:
    """Train without an interruption, once for the same training; weights that it has measured have the same value."""

    def find(training: Training = TRAINING, validated: bool = True) -> tuple[Fit, str, float]:
        parent, found = _wholes(training, validated)
        for file in parent.glob("*.score"):
            shutil.copy(file, tmp_path)
        return found

    return find


def scores(folder: Path) -> Callable[[Encoder], DevQuality]:
    """Return a validation whose value depends on the weights, as a real one's: the same weights, the same value."""
    seen: dict[str, float] = {}
    values: Iterator[float] = iter(SCORES)

    def validate(encoder: Encoder) -> DevQuality:
        path = folder.parent / f"{encoder.fingerprint('document')}.score"
        if not path.exists():
            path.write_text(str(next(values)))
        return steady(seen.setdefault(path.name, float(path.read_text())))

    return validate


@pytest.mark.parametrize(("every", "kill"), [(1, 1), (1, 3), (1, 7), (2, 5), (2, 9), (None, 1), (None, 7), (None, 12)])
def test_killed_at_any_step_it_ends_bit_equal(train: Train, whole: Train, kill: int, every: int | None) -> None:
    training = replace(TRAINING, checkpoint_every=every)
    expected = whole(training)
    with pytest.raises(KilledError):
        train("killed", kill, training)
    fit, weights, temperature = train("killed", training=training)
    assert (weights, temperature) == expected[1:]
    assert fit.history == expected[0].history
    assert fit.curve == expected[0].curve
    assert [point["step"] for point in fit.curve] == [*range(1, 13)]
    assert [entry["step"] for entry in fit.history] == [0, 2, 3, 4, 6, 8, 9, 10, 12]
    assert (fit.kept_step, fit.steps, fit.epochs, fit.stopped) == (4, 12, 4.0, "finished")


def test_without_validation_checkpoints_are_written_where_one_would_be(
    train: Train, whole: Train, tmp_path: Path
) -> None:
    expected = whole(validated=False)
    with pytest.raises(KilledError):
        train("killed", 7, validated=False)
    assert torch.load(tmp_path / "killed" / "step.pt")["step"] == 6
    assert train("killed", validated=False)[1:] == expected[1:]


class Signal(pl.Callback):
    """Sends this process a signal in the middle of a step, once or twice."""

    def __init__(self, number: int, step: int, times: int = 1) -> None:
        self.number = number
        self.step = step
        self.times = times

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: object) -> None:
        if trainer.global_step == self.step - 1:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 5), (signal.SIGTERM, 7), (signal.SIGINT, 3)])
def test_an_interruption_waits_for_the_checkpoint_of_its_step(
    train: Train, whole: Train, tmp_path: Path, number: int, step: int
) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    expected = whole()
    with pytest.raises(KeyboardInterrupt):
        train("stopped", Signal(number, step))
    assert torch.load(tmp_path / "stopped" / "step.pt")["step"] == step
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    fit, weights, temperature = train("stopped")
    assert (weights, temperature) == expected[1:]
    assert fit.history == expected[0].history
    assert fit.stopped == "finished"


def test_interrupted_twice_it_stops_at_once(train: Train, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train("stopped", Signal(signal.SIGINT, 5, times=2))
    assert torch.load(tmp_path / "stopped" / "step.pt")["step"] == 4


def test_what_the_process_was_started_to_ignore_does_not_stop_it(
    train: Train,
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a script's `&` do
    try:
        fit, *_ = train("ignored", Signal(signal.SIGINT, 5))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (fit.steps, fit.stopped) == (12, "finished")


class LateSignal(pl.Callback):
    """Sends this process a signal when the last step is done."""

    def on_train_end(self, *arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_after_the_last_step_is_one(train: Train, whole: Train) -> None:
    expected = whole()
    with pytest.raises(KeyboardInterrupt):
        train("stopped", LateSignal())
    assert train("stopped")[1:] == expected[1:]


def test_killed_thrice(train: Train, whole: Train) -> None:
    training = replace(TRAINING, checkpoint_every=1)
    expected = whole(training)
    for kill in (4, 5, 8):
        with pytest.raises(KilledError):
            train("killed", kill, training)
    assert train("killed", training=training)[1:] == expected[1:]


def test_epochs_are_whole_whatever_lightning_is_told(train: Train, whole: Train) -> None:
    settings = {"limit_train_batches": 2, "overfit_batches": 1, "fast_dev_run": 1}
    assert train("short", **settings)[1:] == whole()[1:]


def test_one_checkpoint_and_the_best_weights_are_kept(train: Train, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train("killed", 11)
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["kept-4.safetensors", "step.pt"]


def test_a_plateau_before_the_interruption_stays_the_end(train: Train) -> None:
    training = replace(TRAINING, patience=2)
    first = train("folder", training=training)
    again = train("folder", training=training)
    assert first[0].stopped == again[0].stopped == "plateau"
    assert first[0].steps == again[0].steps == 8
    assert first[1] == again[1]


def test_what_led_to_a_plateau_is_remembered(train: Train, whole: Train) -> None:
    """The last gain is at step 4; it is killed between the two measurements without one, at 6 and 8."""
    training = replace(TRAINING, patience=2)
    expected = whole(training)
    with pytest.raises(KilledError):
        train("killed", 7, training)
    fit, *others = train("killed", training=training)
    assert (fit.stopped, fit.steps, fit.kept_step) == ("plateau", 8, 4)
    assert fit.history == expected[0].history
    assert tuple(others) == expected[1:]


def test_time_before_an_interruption_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 107.0])
    monkeypatch.setattr("embfit.training.fit.time_limit.time", SimpleNamespace(monotonic=lambda: next(now)))
    assert TimeLimit(None, spent=5.0).elapsed() == 12.0


def test_another_training_is_not_gone_on_with(train: Train) -> None:
    train("folder")
    with pytest.raises(UserError, match=r"step.pt \(step 12\) is of another training"):
        train("folder", training=replace(TRAINING, seed=1))
    with pytest.raises(UserError, match=r"step.pt \(step 12\) is of another training"):
        train("folder", training=replace(TRAINING, batch_size=4))


def test_a_damaged_checkpoint(train: Train, tmp_path: Path) -> None:
    train("folder")
    (tmp_path / "folder" / "step.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"step.pt: cannot be read .*; remove it"):
        train("folder")


def test_time_that_is_over_ends_training_and_measures(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    fit, _, _ = train("folder", training=replace(TRAINING, max_time=1e-6))
    assert (fit.stopped, fit.steps) == ("time", 1)
    assert [entry["step"] for entry in fit.history] == [0, 1]
    assert "training.max_time is over: stopping after step 1 of 12" in caplog.text
    assert train("folder", training=replace(TRAINING, max_time=1e-6))[0].stopped == "time"


@pytest.mark.parametrize(
    ("given", "expected"), [("00:30:00", 1800), ("01:00:00:05", 86_405), (1.5, 90), (30, 1800), ("100:00:00", 360_000)]
)
def test_times(given: str | float, expected: float) -> None:
    assert seconds(given) == expected


@pytest.mark.parametrize("given", ["30", "1:2:3", "1h", 0, -1, "00:00:00"])
def test_what_is_no_time(given: str | float) -> None:
    with pytest.raises(ValueError, match=f"max_time={given} "):
        Training(max_time=given)


def test_a_time_without_quotes() -> None:
    assert yaml.safe_load("12:00:00") == 43_200
    with pytest.raises(ValueError, match=r'max_time=43200 would be minutes.*quote a time \("12:00:00"'):
        Training(max_time=yaml.safe_load("12:00:00"))
    assert yaml.safe_load("30:00") == 1800
    with pytest.raises(ValueError, match="max_time=1800 would be minutes, of which 1440 are too many"):
        Training(max_time=1800)


@pytest.mark.slow
def test_a_killed_process_goes_on_by_its_run_folder(make_encoder: Callable[..., Encoder], tmp_path: Path) -> None:
    save_encoder(make_encoder(dropout=0.1), tmp_path / "tiny")
    pairs = [{"query": " ".join(text.split()[:4]), "positive": text} for text in TEXTS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    embfit = [sys.executable, "-m", "embfit"]
    asked = [
        *("model=custom", f"model.path={tmp_path / 'tiny'}", "data=pairs", f"data.path={tmp_path / 'pairs.jsonl'}"),
        *("miner=none", "training.steps=300", "training.batch_size=4", "training.precision=fp32", "logger=csv"),
        *("training.dropout=true", "training.patience=null", "training.checkpoint_every=7", "trainer=cpu"),
    ]

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*embfit, *arguments], cwd=tmp_path, env=environment)

    assert start(*asked, "run.dir=whole").wait(120) == 0
    killed = start(*asked, "run.dir=killed")
    until = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "step.pt").exists() and time.monotonic() < until:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait(10) != 0
    assert not (tmp_path / "killed" / "training.json").exists()
    assert start("resume=killed").wait(120) == 0
    assert "resuming after step" in (tmp_path / "killed" / "log.txt").read_text()
    weights, again = ((tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "killed"))
    assert weights == again
