"""A cross-encoder is trained on the pairs that it is to score, once, and its scores join those of the miner."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from torch import nn

from embfit.evaluator import Retrieval
from embfit.evaluator.systems import EvaluationContext
from embfit.loss import Binary, Listwise
from embfit.miner import DenseMiner, HybridMiner, NoNegatives
from embfit.model import Encoder, Pretrained, load_teacher, save_encoder
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.records import Collection, Ranking, TrainingSet
from embfit.store import Store, digest
from embfit.teacher import CrossEncoderTeacher
from embfit.teacher.cross_encoder import drawn, loss_identity
from embfit.training import ListTraining

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1)
DENSE = DenseMiner(negatives=3, relative_margin=None)


@pytest.fixture
def context(tiny_encoder: Encoder, small_collection: Collection, store: Store, tmp_path: Path) -> EvaluationContext:
    save_encoder(tiny_encoder, tmp_path / "tiny")
    model = Pretrained(str(tmp_path / "tiny"), precision="fp32")
    return Retrieval().context(small_collection, store, model, ("cpu",))


def new_teacher(**changed: Any) -> CrossEncoderTeacher:
    settings = {"steps": 2, "batch_size": 4, "negatives": 3, "folds": changed.pop("folds", None), "precision": "fp32"}
    known = {"loss": Listwise(), "training": ListTraining(**settings), "max_length": 32, "precision": "fp32"}
    return CrossEncoderTeacher(**{**known, **changed})


def mined(context: EvaluationContext, miner: Any = DENSE) -> TrainingSet:
    return miner.mine(context.collection, context.encoder, context.store)


def test_its_scores_are_those_of_what_was_trained_and_join_the_miners(
    context: EvaluationContext, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain, hybrid = mined(context), mined(context, HybridMiner(DENSE, language="en"))
    taught = new_teacher().learn(plain, context, None, TRAINER)
    alone = taught.score(plain)
    [folder] = (path for path in (store.dir / "teachers").iterdir() if path.is_dir())
    trained = load_teacher(str(folder / "model"), 32, "fp32", "cpu").whole  # type: ignore[union-attr]
    for row in alone.rows:
        [query] = context.collection.query_texts([row["query"]])
        texts = context.collection.document_texts([*row["positives"], *row["negatives"]])
        np.testing.assert_allclose(row["scores"], trained.score([(query, text) for text in texts]), atol=1e-5)
    assert alone.facts["teacher_scores"] == 8 * 4
    assert (alone.facts["teacher_lists"], alone.facts["teacher_steps"]) == (8, 2)
    assert alone.facts["teacher_kept_step"] == 2  # without a dev split the last weights are kept
    both = new_teacher(weight=0.5).learn(hybrid, context, None, TRAINER).score(hybrid)
    for row, own, given in zip(both.rows, alone.rows, hybrid.rows, strict=True):
        expected = 0.5 * np.array(own["scores"]) + np.array(given["scores"])
        np.testing.assert_allclose(row["scores"], expected, atol=1e-4)


def test_it_is_trained_once_and_again_for_other_pairs_or_settings(context: EvaluationContext, store: Store) -> None:
    plain = mined(context)
    new_teacher().learn(plain, context, None, TRAINER)
    new_teacher().learn(plain, context, None, TRAINER)
    assert store.built.count("teachers") == 1
    for changed in ({"loss": Listwise(temperature=2.0)}, {"loss": Binary()}, {"lists": 4}, {"seed": 1}):
        new_teacher(**changed).learn(plain, context, None, TRAINER)
    assert store.built.count("teachers") == 5


class Summed(nn.Module):
    """A loss of parts, as a user may write one."""

    on_lists = True

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


def test_what_a_trained_teacher_is_kept_under(context: EvaluationContext) -> None:
    """Values of a loss's parts, the number of ranks, and the documents of a validation are all in the key."""
    plain, ranker = mined(context), PretrainedCrossEncoder(context.model, max_length=32).load("cpu")
    dev = context.on("test")

    def key(dev: EvaluationContext, devices: int = 1, **changed: Any) -> str:
        trainer = partial(pl.Trainer, accelerator="cpu", devices=devices)
        return digest(new_teacher(**changed)._key(ranker, plain, dev, trainer))

    other = context.on("test")
    ranking = dev.evaluation("base").ranking
    turned = Ranking({query: list(found)[::-1] for query, found in ranking.documents.items()})
    other._found["base"] = replace(dev.evaluation("base"), ranking=turned)
    keys = [key(dev), key(dev, devices=2), key(other), key(dev, dev_depth=2)]
    keys += [key(dev, loss=Summed(Listwise(one), Binary())) for one in (1.0, 2.0)]
    assert len(set(keys)) == 6
    assert key(dev) == key(context.on("test"))


def test_folds_score_what_they_were_not_trained_on(
    context: EvaluationContext, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    plain = mined(context)
    taught = new_teacher(folds=2).learn(plain, context, context.on("test"), TRAINER)
    [folder] = (path for path in (store.dir / "teachers").iterdir() if path.is_dir())
    assert sorted(path.name for path in (folder / "model" / "folds").iterdir()) == ["0", "1", "folds.json"]
    assert not (folder / "checkpoints").exists()
    assert len(taught.model.folds) == 2  # type: ignore[union-attr]
    teacher, encoder = (taught.facts[f"{name}_ndcg@10_on_dev"] for name in ("teacher", "encoder"))
    assert encoder == pytest.approx(context.evaluation("base").metrics["ndcg@10"])
    assert teacher < encoder  # two steps make no teacher
    assert f"reaches ndcg@10 {teacher:.4f} on dev, and the encoder that it is to teach {encoder:.4f}" in caplog.text
    assert len(taught.score(plain).rows["scores"][0]) == 4


def test_lists_are_drawn_among_queries_with_negatives(context: EvaluationContext) -> None:
    plain = mined(context)
    some = drawn(plain, 3, 0)
    assert len(some.rows) == 3
    assert some.rows["query"][:] == sorted(some.rows["query"][:])
    assert drawn(plain, 3, 0).rows["query"][:] == some.rows["query"][:]
    assert drawn(plain, 3, 1).rows["query"][:] != some.rows["query"][:]
    assert len(drawn(plain, None, 0).rows) == 8
    none = mined(context, NoNegatives())
    assert len(drawn(none, 3, 0).rows) == 8  # all without: training says what is wrong


class Cut(nn.Module):
    """A loss of a user's own, with a setting that is no number."""

    on_lists = True

    def __init__(self, depths: tuple[int, ...], name: str | None = None) -> None:
        super().__init__()
        self.depths, self._name = depths, name
        self.inner = Listwise()


def test_a_teacher_is_known_by_every_setting_of_its_loss() -> None:
    losses = [Cut((1, 2)), Cut((1, 3)), Cut((1, 2), "top"), Listwise(), Listwise(0.5), Binary(), Binary(2.0)]
    found = [digest(loss_identity(loss)) for loss in losses]
    assert len({*found}) == len(losses)
    assert digest(loss_identity(Cut((1, 2)))) == found[0]
