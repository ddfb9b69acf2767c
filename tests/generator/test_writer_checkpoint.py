"""A query writer's training that is interrupted: it resumes, and ends with the weights of one that was not."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from embfit.errors import UserError
from embfit.generator import TrainedGenerator
from embfit.generator.writer_checkpoint import WriterCheckpoints
from embfit.generator.writer_loss import WriterLoss, WrittenPair
from embfit.generator.writer_training import WriterSettings, train_writer
from embfit.model import LoRA
from embfit.model.lora import attach
from embfit.records import Collection
from embfit.store import Store, digest
from tests.conftest import TEXTS, make_collection
from tests.generator.test_decoding import SIZES
from tests.generator.test_local import new_writer

PAIRS = [WrittenPair([2 + n, 3 + n, 4 + n], [[20 + n, 21 + n], [30, 31]]) for n in range(8)]
HELD_OUT = [WrittenPair([7, 5, 9], [[22, 23], [30, 31]]), WrittenPair([8, 5], [[30, 31]])]
SETTINGS = WriterSettings(epochs=3, batch_size=4, lr=3e-3)  # 4 steps an epoch, 12 in all
InStep: TypeAlias = Callable[[int, Callable[[], None]], None]


class KilledError(Exception):
    """Stands for the end of a process: what it had in memory is gone."""


def kill() -> None:
    raise KilledError


def with_dropout() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4))


def with_adapter() -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaForCausalLM.config_class(**SIZES))
    attach(model, LoRA(rank=4, dropout=0.1), 0, "base", None)
    return model


def train(
    model: Any,
    path: Path | None = None,
    every: float = 0.0,
    settings: WriterSettings = SETTINGS,
    pairs: Sequence[WrittenPair] = PAIRS,
) -> dict[str, Any]:
    """Train a model, with a checkpoint after each step if a file is given."""
    checkpoints = WriterCheckpoints(path, every, ratio=0.0) if path else None
    return train_writer(model, pairs, HELD_OUT, settings, False, checkpoints)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings; another test of the process may have switched on info lines."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def assert_same_weights(found: Any, expected: Any) -> None:
    pairs = zip(found.named_parameters(), expected.named_parameters(), strict=True)
    assert [name for (name, one), (_, other) in pairs if not torch.equal(one, other)] == []


@pytest.fixture
def in_step(monkeypatch: pytest.MonkeyPatch) -> InStep:
    """Do something within an optimizer step, before it moves a weight: 1 is the next."""
    plain = torch.optim.AdamW.step
    left: dict[int, Callable[[], None]] = {}

    def step(self: Any, *rest: Any, **more: Any) -> Any:
        waiting = {count - 1: event for count, event in left.items()}
        left.clear()
        left.update(waiting)
        left.pop(0, lambda: None)()
        return plain(self, *rest, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return left.__setitem__


@pytest.fixture
def resumed_at(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what the log says of resuming."""
    caplog.set_level(logging.INFO)
    return lambda: [line for line in caplog.messages if "resuming" in line]


@pytest.mark.parametrize("build", [with_dropout, with_adapter])
def test_a_killed_training_ends_with_the_same_weights(
    build: Callable[[], Any], tmp_path: Path, in_step: InStep, resumed_at: Callable[[], list[str]]
) -> None:
    """Killed in its first step, in the first step of an epoch, within an epoch, and in its last step."""
    expected = build()
    facts = train(expected)
    path = tmp_path / "checkpoint" / "step.pt"
    for done, step in ((0, 1), (0, 5), (4, 7), (6, 12)):
        in_step(step - done, kill)
        with pytest.raises(KilledError):
            train(build(), path)
    (path.parent / ".step.pt-0a1b2c").write_bytes(b"half")  # killed while it wrote
    resumed = build()
    assert train(resumed, path) == facts
    assert_same_weights(resumed, expected)
    assert resumed_at() == [f"resuming the writer's training at step {step} of 12" for step in (4, 6, 11)]
    assert [file.name for file in path.parent.iterdir()] == ["step.pt"]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [((5.0, 4.0, 4.5), 1), ((5.0, 5.5), None), ((5.0, 4.0, 3.0, 3.5), 2), ((5.0, 4.0, 3.0, 2.0), 3)],
)
def test_training_that_is_killed_while_it_measures_keeps_the_best_weights(
    losses: tuple[float, ...], kept: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float | None] = []  # None kills

    def mean(self: WriterLoss, *_: Any) -> float:
        self.model.eval()
        found = left.pop(0)
        if found is None:
            raise KilledError
        return found

    monkeypatch.setattr(WriterLoss, "mean", mean)
    left.extend(losses)
    expected = with_dropout()
    facts = train(expected)
    assert facts.get("kept_epoch") == kept
    left.append(losses[0])
    for loss in losses[1:]:  # each epoch's measurement is begun twice
        left.extend([None, loss])
    for _ in losses[1:]:
        with pytest.raises(KilledError):
            train(with_dropout(), tmp_path / "step.pt")
    resumed = with_dropout()
    assert train(resumed, tmp_path / "step.pt") == facts
    assert left == []
    assert_same_weights(resumed, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [3, 4])  # within an epoch; its last, after which it is measured
def test_a_signal_ends_the_training_with_a_checkpoint_of_the_step(
    number: signal.Signals, step: int, tmp_path: Path, in_step: InStep, resumed_at: Callable[[], list[str]]
) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    expected = with_dropout()
    train(expected)
    in_step(step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt):
        train(with_dropout(), tmp_path / "step.pt", every=3600.0)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    resumed = with_dropout()
    train(resumed, tmp_path / "step.pt", every=3600.0)
    assert resumed_at() == [f"resuming the writer's training at step {step} of 12"]
    assert_same_weights(resumed, expected)


def test_a_signal_ends_a_measurement_at_its_next_micro_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, parts = WriterLoss._of, [0]

    def of(self: WriterLoss, *rest: Any) -> Tensor:
        if not torch.is_grad_enabled():
            parts[0] += 1
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *rest)

    monkeypatch.setattr(WriterLoss, "_of", of)
    with pytest.raises(KeyboardInterrupt):
        train(with_dropout(), tmp_path / "step.pt")
    assert parts == [1]
    assert not (tmp_path / "step.pt").exists()  # no step was taken


def test_checkpoints_are_written_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("embfit.generator.writer_checkpoint.time.monotonic", lambda: now[0])
    written: list[float] = []
    plain = torch.save

    def save(*rest: Any) -> None:
        written.append(now[0])
        now[0] += 1.0 if len(written) == 1 else 30.0  # the second one is slow
        plain(*rest)

    monkeypatch.setattr(torch, "save", save)

    def second() -> float:
        now[0] += 100.0
        return now[0]

    checkpoints = WriterCheckpoints(tmp_path / "step.pt", every=300.0)
    monkeypatch.setattr(WriterLoss, "backward", lambda *_: second())
    monkeypatch.setattr(WriterLoss, "mean", lambda *_: 1.0)
    train_writer(with_dropout(), PAIRS, [], SETTINGS, False, checkpoints)
    assert written == [1300.0, 1601.0, 2231.0]  # 300 s after the first's end, 1301 s; 20 times 30 s after 1631 s


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    tmp_path: Path, in_step: InStep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = with_dropout()
    facts = train(expected)

    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")  # as PyTorch says it

    plain = torch.save
    monkeypatch.setattr(torch, "save", full)
    found = with_dropout()
    assert train(found, tmp_path / "step.pt") == facts
    assert_same_weights(found, expected)
    assert warnings_in(caplog)[0] == (
        f"{tmp_path / 'step.pt'}: no space for a checkpoint of step 1; if it is interrupted, the writer's training "
        "resumes from its first step"
    )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(torch, "save", plain)
    in_step(3, lambda: monkeypatch.setattr(torch, "save", full))
    caplog.clear()
    train(with_dropout(), tmp_path / "step.pt")
    assert "no space for a checkpoint of step 3; " in warnings_in(caplog)[0]
    assert warnings_in(caplog)[0].endswith("resumes from the one before")
    assert torch.load(tmp_path / "step.pt", weights_only=True)["step"] == 2


def test_another_error_of_the_disk_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="Input/output error"):
        train(with_dropout(), tmp_path / "step.pt")


@pytest.mark.parametrize("damage", ["bytes", "keys", "rate", "pairs"])
def test_a_checkpoint_that_is_not_of_this_training_is_not_resumed(
    damage: str, tmp_path: Path, in_step: InStep, caplog: pytest.LogCaptureFixture
) -> None:
    expected, path = with_dropout(), tmp_path / "step.pt"
    train(expected)
    other = replace(SETTINGS, lr=1e-3) if damage == "rate" else SETTINGS
    in_step(3, kill)
    with pytest.raises(KilledError):
        train(with_dropout(), path, settings=other, pairs=PAIRS[:7] if damage == "pairs" else PAIRS)
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:5000])
    if damage == "keys":
        torch.save({"step": 3}, path)
    caplog.clear()
    found = with_dropout()
    train(found, path)
    assert_same_weights(found, expected)
    reason = "cannot be read (" if damage in ("bytes", "keys") else "is of another training; "
    assert warnings_in(caplog)[0].startswith(f"{path} {reason}")
    assert warnings_in(caplog)[0].endswith("the writer's training starts again")


@pytest.fixture
def labelled() -> Collection:
    """Twelve documents, each with a training query that is its first three words."""
    queries = {f"q{row}": " ".join(text.split()[:3]) for row, text in enumerate(TEXTS)}
    qrels = {"train": {f"q{row}": {f"d{row}": 1} for row in range(len(TEXTS))}}
    return make_collection({f"d{row}": text for row, text in enumerate(TEXTS)}, queries, qrels)


def written(folder: Path) -> dict[str, str]:
    """Return digests of the files of the trained model in a store's folder."""
    [entry] = [one for one in (folder / "query-writers").iterdir() if one.is_dir()]
    assert not entry.suffix
    return {
        file.relative_to(entry).as_posix(): digest({"": file.read_bytes().hex()})
        for file in sorted(entry.rglob("*"))
        if file.is_file()
    }


def test_the_store_has_the_model_of_an_interrupted_training_and_no_checkpoint(
    labelled: Collection, tmp_path: Path, in_step: InStep, resumed_at: Callable[[], list[str]]
) -> None:
    base = new_writer(tmp_path / "base")
    settings = {"model": str(base), "epochs": 2, "pairs_per_step": 2, "max_tokens": 16, "held_out": 0.2}
    made = TrainedGenerator(**settings, precision="fp32", device="cpu")
    made.trained_model(labelled, Store(tmp_path / "whole"))
    in_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        made.trained_model(labelled, store)
    [left] = (tmp_path / "store" / "query-writers").glob("*.resumable")
    assert [file.name for file in left.rglob("*") if file.is_file()] == ["step.pt"]
    other = TrainedGenerator(**settings, lr=2e-4, precision="fp32", device="cpu")
    in_step(2, kill)
    with pytest.raises(KilledError):
        other.trained_model(labelled, store)
    assert resumed_at() == []  # the other training has a folder of its own
    [of_other] = set((tmp_path / "store" / "query-writers").glob("*.resumable")) - {left}
    of_other.rmdir()
    made.trained_model(labelled, store)
    assert len(resumed_at()) == 1
    assert resumed_at()[0].startswith("resuming the writer's training at step 3 of ")
    assert written(tmp_path / "store") == written(tmp_path / "whole")
    assert "training.json" in written(tmp_path / "store")


def test_a_build_that_was_killed_behind_its_last_file_trains_nothing_again(
    labelled: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = new_writer(tmp_path / "base")
    made = TrainedGenerator(model=str(base), epochs=1, max_tokens=16, precision="fp32", device="cpu")
    with monkeypatch.context() as patched:
        patched.setattr("embfit.generator.trained.shutil.rmtree", lambda *_, **__: kill())
        with pytest.raises(KilledError):
            made.trained_model(labelled, Store(tmp_path))
    monkeypatch.setattr(TrainedGenerator, "_train", lambda *_: kill())
    made.trained_model(labelled, Store(tmp_path))
    assert "model.safetensors" in written(tmp_path)


def test_a_training_that_cannot_go_on_leaves_no_checkpoint(
    labelled: Collection, tmp_path: Path, in_step: InStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WriterCheckpoints, "is_due", True)
    base = new_writer(tmp_path / "base")
    made = TrainedGenerator(model=str(base), pairs_per_step=2, max_tokens=16, precision="fp32", device="cpu")

    def diverge() -> None:
        assert len(list((tmp_path / "query-writers").rglob("step.pt"))) == 1
        monkeypatch.setattr(WriterLoss, "backward", lambda *_: float("nan"))

    in_step(2, diverge)
    with pytest.raises(UserError, match=r"became NaN or infinite; lower generator\.lr=0\.0001"):
        made.trained_model(labelled, Store(tmp_path))
    assert list((tmp_path / "query-writers").rglob("step.pt")) == []
