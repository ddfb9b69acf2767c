from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from datasets import Dataset

from embfit.errors import ConfigError, UserError
from embfit.loss import KL, Distillation, InfoNCE, MarginMSE, Matryoshka
from embfit.model import Encoder, embed, save_encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store
from embfit.training import Training
from embfit.training.guide import Guide, doubtful, make_guide
from embfit.vectors import Vectors

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)


def test_doubtful_pairs_by_hand() -> None:
    queries = Vectors(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    documents = Vectors(torch.tensor([[0.8, 0.1], [0.75, 0.9], [0.6, 0.5]]))  # scores: .8 .75 .6 and .1 .9 .5
    positives = torch.tensor([[True, False, False], [False, True, True]])
    assert doubtful(queries, documents, positives, 0.0).int().tolist() == [[0, 0, 0], [0, 0, 0]]
    assert doubtful(queries, documents, positives, 0.1).int().tolist() == [[0, 1, 0], [0, 0, 0]]
    assert doubtful(queries, documents, positives, 0.3).int().tolist() == [[0, 1, 1], [0, 0, 0]]
    assert doubtful(queries, documents, positives, 0.45).int().tolist() == [[0, 1, 1], [1, 0, 0]]
    assert doubtful(queries, documents, positives, -0.2).sum() == 0


@pytest.fixture
def training_set(small_collection: Collection) -> TrainingSet:
    """Eight examples with one mined negative each."""
    rows = [
        {"query": row, "positives": [row], "negatives": [row + 1], "scores": [], "weight": 1.0, "source": "test"}
        for row in range(8)
    ]
    return TrainingSet(small_collection, Dataset.from_list(rows), {row: frozenset([row]) for row in range(8)})


def test_vectors_are_those_of_the_store(tiny_encoder: Encoder, small_collection: Collection, store: Store) -> None:
    guide = make_guide("base", 0.1, tiny_encoder, small_collection, np.array([1, 3, 5]), store)
    queries, documents = guide.vectors(np.array([3, 5]), np.array([0, 7]))
    assert np.array_equal(queries.rows, embed(tiny_encoder, small_collection, "query", store).vectors.rows[[3, 5]])
    assert np.array_equal(documents.rows, embed(tiny_encoder, small_collection, "document", store).vectors.rows[[0, 7]])
    again: Guide = pickle.loads(pickle.dumps(guide))  # as another rank gets it
    assert len(pickle.dumps(guide)) < 2000  # file names, no vectors
    assert again.digest == guide.digest != replace(guide, margin=0.2).digest
    assert torch.equal(again.vectors(np.array([3]), np.array([7]))[1].rows, documents.rows[1:])


def shares(training_set: TrainingSet, encoder: Encoder, folder: Path, loss: torch.nn.Module, **settings: object):
    """Return the loss and the share of masked pairs of one step at rest."""
    seen: list[tuple[float, float]] = []

    class Seen(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            watch = lambda step, found: seen.append((found["train/loss"], found["train/masked_share"]))  # noqa: E731
            module.begin(module.ranks, [watch])

    training = Training(batch_size=8, lr=1e-9, steps=1, precision="fp32", **settings)
    trainer = partial(TRAINER, callbacks=[Seen()])
    training.fit(encoder, loss, training_set, None, trainer, Store(folder / "store"), folder)
    (folder / "step.pt").unlink(missing_ok=True)
    return seen[0]


@pytest.mark.parametrize("loss", [InfoNCE(), Matryoshka(InfoNCE(), [8, 32])], ids=["infonce", "mrl"])
def test_a_guide_masks_in_batch_and_mined_negatives(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, tmp_path: Path, loss: torch.nn.Module
) -> None:
    plain = shares(training_set, make_encoder(), tmp_path, loss)
    some = shares(training_set, make_encoder(), tmp_path, loss, guide="base", guide_margin=0.0)
    assert plain[1] == 0
    assert 0 < some[1] < 1
    assert some[0] < plain[0]
    (tmp_path / "all").mkdir()
    with pytest.raises(UserError, match=r"no step of epoch 1 had a negative: .* or the guide masks it"):
        shares(training_set, make_encoder(), tmp_path / "all", loss, guide="base", guide_margin=2.0)
    assert shares(training_set, make_encoder(), tmp_path, loss, guide="base", guide_margin=-2.0) == plain


def test_what_is_known_to_be_relevant_stays_masked_under_a_guide(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, tmp_path: Path
) -> None:
    known = replace(training_set, relevant={row: frozenset([row, row + 1]) for row in range(8)})
    plain = shares(known, make_encoder(), tmp_path, InfoNCE())
    assert plain[1] == pytest.approx(8 / (8 * 9 - 8))  # one of each query's documents that are no positives
    assert shares(known, make_encoder(), tmp_path, InfoNCE(), guide="base", guide_margin=-2.0) == plain


def test_another_encoder_may_guide(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, tmp_path: Path
) -> None:
    save_encoder(make_encoder(), tmp_path / "guide")
    base = shares(training_set, make_encoder(), tmp_path, InfoNCE(), guide="base")
    other = shares(training_set, make_encoder(), tmp_path, InfoNCE(), guide=str(tmp_path / "guide"))
    assert other == base


@pytest.mark.parametrize("loss", [KL(), Matryoshka(MarginMSE(), [8, 32])], ids=["kl", "mrl of margin-mse"])
def test_a_guide_has_nothing_to_say_to_a_teacher_alone(
    tiny_encoder: Encoder, training_set: TrainingSet, tmp_path: Path, loss: torch.nn.Module
) -> None:
    with pytest.raises(ConfigError, match=r"training.guide=base masks negatives, and \w+ learns .*or loss=distill"):
        shares(training_set, tiny_encoder, tmp_path, loss, guide="base")
    Training(guide="base").check_loss(tiny_encoder, Distillation(InfoNCE(), KL()))


def test_a_margin_without_a_guide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.guide_margin=0.1 has no guide; set training.guide=base"):
        Training(guide_margin=0.1)
