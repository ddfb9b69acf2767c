"""Mining again in training: with the weights of that moment, when asked for, and to the same end after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from transformers import PreTrainedTokenizerFast

from embfit.errors import UserError
from embfit.loss import InfoNCE
from embfit.miner import DenseMiner
from embfit.model import Encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store
from embfit.training import Fit, Training
from tests.conftest import new_collection, new_encoder

# 8 examples in batches of 3, 3 and 2: five epochs are fifteen steps
TRAINING = Training(
    batch_size=3, lr=1e-2, epochs=5, precision="fp32", token_budget=40, checkpoint_every=1, remine_every=2
)


class KilledError(Exception):
    """Stands for the end of the process."""


class Kill(pl.Callback):
    """Ends the process after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        if trainer.global_step == self.steps:
            raise KilledError


Trained = tuple[Fit, str, list[str]]


def train_in(
    parent: Path, tokenizer: PreTrainedTokenizerFast, folder: str, kill: int | None = None, devices: int = 1
) -> Trained:
    """Train a fresh encoder; return what training did, the weights' fingerprint, and who mined."""
    miner = DenseMiner(negatives=3, depth=9, relative_margin=None)
    encoder, collection, store = new_encoder(tokenizer), new_collection(), Store(parent / f"store-{folder}-{kill}")
    miners: list[str] = []

    def remine(encoder: Encoder) -> TrainingSet:
        miners.append(encoder.fingerprint("document"))
        return miner.mine(collection, encoder, store)

    callbacks = [Kill(kill)] if kill else []
    trainer = partial(pl.Trainer, accelerator="cpu", devices=devices, logger=False, callbacks=callbacks)
    (parent / folder).mkdir(exist_ok=True)
    first = miner.mine(collection, encoder, store)
    fit = TRAINING.fit(encoder, InfoNCE(), first, None, trainer, store, parent / folder, remine)
    return fit, encoder.fingerprint("document"), miners


@pytest.fixture
def train(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., Trained]:
    """Train in a folder of the test's own."""
    return partial(train_in, tmp_path, tokenizer)


@pytest.fixture(scope="module")
def whole(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training without an interruption."""
    return train_in(tmp_path_factory.mktemp("whole"), tokenizer, "whole")


def test_the_model_of_that_moment_mines(whole: Trained, make_encoder: Callable[..., Encoder]) -> None:
    fit, last, miners = whole
    assert fit.steps == 15
    assert len(miners) == 2  # after epochs 2 and 4
    assert len({*miners, last, make_encoder().fingerprint("document")}) == 4


@pytest.mark.parametrize("kill", [5, 6, 7, 11, 12, 14])
def test_killed_at_any_step_it_ends_bit_equal(train: Callable[..., Trained], whole: Trained, kill: int) -> None:
    _, expected, miners = whole
    with pytest.raises(KilledError):
        train("killed", kill)
    _, weights, again = train("killed")
    assert weights == expected
    assert again == miners[len(miners) - len(again) :]  # of a mined epoch that had begun, nothing is mined again
    assert len(again) == {5: 2, 6: 2, 7: 1, 11: 1, 12: 1, 14: 0}[kill]


def test_what_was_mined_and_is_gone_is_one_message(train: Callable[..., Trained], tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train("killed", 8)
    (tmp_path / "killed" / "mined-2.pt").unlink()
    with pytest.raises(UserError, match=r"mined-2\.pt: what was mined in this training cannot be read"):
        train("killed")


def test_two_ranks_train_on_what_the_first_has_mined(train: Callable[..., Trained]) -> None:
    fit, _, miners = train("ranks", devices=2)
    assert fit.steps == 10  # of twice the size
    assert len(miners) == 2


def test_queries_that_mining_again_leaves_out_are_an_error(
    small_collection: Collection, tiny_encoder: Encoder, store: Store, tmp_path: Path
) -> None:
    examples = DenseMiner(2, depth=5).mine(small_collection, tiny_encoder, store)

    def fewer(encoder: Encoder) -> TrainingSet:
        return replace(examples, rows=examples.rows.select(range(7)))

    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    with pytest.raises(UserError, match=r"changed which of 8 queries are trained on \(1 came or went\).*=keep"):
        TRAINING.fit(tiny_encoder, InfoNCE(), examples, None, trainer, store, tmp_path, fewer)


def test_as_many_other_queries_are_an_error_too(
    small_collection: Collection, tiny_encoder: Encoder, store: Store, tmp_path: Path
) -> None:
    examples = DenseMiner(2, depth=5).mine(small_collection, tiny_encoder, store)
    first, second = (replace(examples, rows=examples.rows.select(rows)) for rows in (range(7), range(1, 8)))
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    with pytest.raises(UserError, match=r"changed which of 7 queries are trained on \(2 came or went\)"):
        TRAINING.fit(tiny_encoder, InfoNCE(), first, None, trainer, store, tmp_path, lambda encoder: second)


def test_mining_at_other_times_is_another_training(
    small_collection: Collection, tiny_encoder: Encoder, store: Store, tmp_path: Path
) -> None:
    examples = DenseMiner(2, depth=5).mine(small_collection, tiny_encoder, store)
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    arguments = (tiny_encoder, InfoNCE(), examples, None, trainer, store, tmp_path, lambda encoder: examples)
    once = replace(TRAINING, steps=1)
    once.fit(*arguments)
    with pytest.raises(UserError, match="is of another training"):
        replace(once, remine_every=None).fit(*arguments)


def test_it_needs_something_that_mines(
    small_collection: Collection, tiny_encoder: Encoder, store: Store, tmp_path: Path
) -> None:
    examples = DenseMiner(2, depth=5).mine(small_collection, tiny_encoder, store)
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    with pytest.raises(ValueError, match="remine_every needs remine"):
        TRAINING.fit(tiny_encoder, InfoNCE(), examples, None, trainer, store, tmp_path)
