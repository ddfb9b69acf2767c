"""Cross-encoders from the command line, on two-layer models and a collection of a few dozen texts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from embfit.app import main
from embfit.errors import UserError
from embfit.model import CrossEncoder, save_cross_encoder
from embfit.records import Collection, TrainingSet
from embfit.task import cross_encoder_trainee as module
from embfit.training import Fit
from embfit.training.folds import folds_of
from tests.conftest import make_collection
from tests.task.test_tasks import report


@pytest.fixture
def ranker(tiny_ranker: CrossEncoder, tmp_path: Path) -> str:
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    return str(tmp_path / "ranker")


@pytest.mark.parametrize(
    "choices",
    [
        ["experiment=distill"],
        ["loss=distill", "miner=scored"],
        ["loss=distill", "miner=scored", "miner@miner.miner=blend"],
    ],
)
def test_distillation_from_one_command(command: list[str], ranker: str, choices: list[str]) -> None:
    assert main([*command, *choices, f"miner.model={ranker}", "training.epochs=1", "run.dir=run"]) == 0
    found = report("run")
    assert found["mining"]["teacher_scores"] > 24  # each query's positive, and negatives
    assert found["training"]["steps"] == 3
    assert {"base", "tuned"} <= found["systems"].keys()


@pytest.mark.parametrize("miner", ["hybrid", "dense"])
def test_a_teacher_is_trained_first(
    command: list[str], miner: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = ["teacher=cross-encoder", "teacher.training.steps=2", "teacher.max_length=32", "teacher.precision=fp32"]
    words = [*command, *teacher, "loss=distill", f"miner={miner}", "training.steps=1"]
    assert main([*words, "run.dir=run"]) == 0
    found = report("run")
    mining = found["mining"]
    assert (mining["teacher_lists"], mining["teacher_steps"]) == (12, 2)  # the other queries have no negative
    assert mining["teacher_scores"] > 24
    assert "train teacher" in found["timings"]
    assert main([*words, "training.lr=1e-4", "run.dir=again"]) == 0
    assert caplog.text.count("training a cross-encoder to teach: 12 lists") == 1
    assert main([*command, *teacher, "run.dir=refused"]) == 2
    assert "teacher: gives scores that this loss does not read; set loss=distill" in capsys.readouterr().err
    assert main([*words, "miner=none", "run.dir=none"]) == 1
    assert "collection has no training query with a negative, and miner=none finds none" in capsys.readouterr().err
    assert json.loads(Path("none/status.json").read_text())["stage"] == "load data"  # nothing was measured


def test_mined_scores_are_written_for_people(command: list[str], ranker: str) -> None:
    assert main([*command, "task=mine", "miner=cross-encoder", f"miner.model={ranker}", "run.dir=run"]) == 0
    lines = [json.loads(line) for line in Path("run/negatives.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    found = [negative for line in lines for negative in line["negatives"]]
    assert found
    assert {negative["source"] for negative in found} == {"cross-encoder"}
    for line in lines:
        lowest = min(positive["score"] for positive in line["positives"])
        assert all(negative["score"] <= lowest for negative in line["negatives"])


def test_the_cross_encoder_must_be_named(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "task=mine", "miner=cross-encoder", "run.dir=run"]) == 2
    assert "miner.model: is not set" in capsys.readouterr().err


@pytest.fixture
def crossed(command: list[str]) -> list[str]:
    """Overrides that make a cross-encoder of the tiny model, behind the tiny model."""
    path = next(word.partition("=")[2] for word in command if word.startswith("model.path="))
    rest = [word for word in command if not word.startswith(("model", "training"))]
    return [
        *rest,
        "model=cross-encoder",
        "model.max_length=40",
        "model.precision=fp32",
        "model@model.first_stage=custom",
        f"model.first_stage.path={path}",
        "model.first_stage.precision=fp32",
        "miner.negatives=6",
        "miner.relative_margin=null",
        "training.lr=2e-3",
    ]


def test_a_cross_encoder_of_ones_own_teaches(
    crossed: list[str], command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main([*crossed, "training.folds=2", "training.epochs=4", "run.dir=run"]) == 0
    found = report("run")
    assert {"base", "tuned", "bm25"} == found["systems"].keys()
    assert (found["comparisons"][0]["a"], found["comparisons"][0]["b"]) == ("base", "tuned")
    assert found["systems"]["base"]["metrics"]["recall@100"] == found["systems"]["tuned"]["metrics"]["recall@100"]
    assert sorted(path.name for path in Path("run/rankings").glob("*.trec")) == ["base.trec", "bm25.trec", "tuned.trec"]
    assert "CrossEncoder" in Path("run/model/README.md").read_text()
    assert not Path("run/checkpoints").exists()
    said = json.loads(Path("run/model/folds/folds.json").read_text())
    assert sorted(said["queries"].values()) == [0] * 12 + [1] * 12
    assert caplog.text.count("training on 24 lists") == 1
    assert caplog.text.count("training on 12 lists") == 2

    assert main([*command, "experiment=distill", "miner.model=run/model", "training.epochs=1", "run.dir=taught"]) == 0
    assert report("taught")["mining"]["teacher_scores"] > 24


def test_folds_are_cut_by_text_and_a_large_one_is_told(caplog: pytest.LogCaptureFixture) -> None:
    documents = {f"d{row}": f"text {row % 6}" for row in range(12)}  # each text twice
    collection = make_collection(documents, {f"q{row}": f"question {row}" for row in range(12)}, {})

    def cut(positives: list[list[int]]) -> list[int]:
        rows = Dataset.from_dict({"query": list(range(12)), "positives": positives})
        return folds_of(TrainingSet(collection, rows, {}), 3, 0).tolist()

    folds = cut([[row] for row in range(12)])
    assert folds[:6] == folds[6:]
    assert sorted(folds) == [0] * 4 + [1] * 4 + [2] * 4
    assert caplog.text == ""
    assert sorted(cut([[0]] * 8 + [[row] for row in range(1, 5)])) == [0] * 8 + [1] * 2 + [2] * 2
    assert "8 of 12 queries are connected" in caplog.text
    assert sorted(cut([[0]] * 11 + [[1]])) == [0] * 11 + [1]  # two folds, not three
    with pytest.raises(UserError, match=r"training.folds=3: all 12 queries are connected.*set training.folds=null"):
        cut([[0]] * 12)
    assert "trained only on the other 4" in caplog.text


def test_no_fold_is_trained_on_its_own_queries(
    small_collection: Collection, tiny_ranker: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, list[int]] = {}

    def fit(ranker: CrossEncoder, training_set: TrainingSet, folder: Path) -> Fit:
        trained[folder.name] = training_set.rows["query"][:]
        return Fit(1, 1.0, 1, [], None, [], "finished", 1.0, 0.0, 1.0, 1.0)

    saved: list[str] = []
    monkeypatch.setattr(module, "save_cross_encoder", lambda ranker, folder: saved.append(folder.name))
    (tmp_path / "model").mkdir()
    training_set = TrainingSet(small_collection, Dataset.from_dict({"query": list(range(8))}), {})
    run = SimpleNamespace(dir=tmp_path, resuming=False)
    module._train_folds(np.array([0, 1, 2, 0, 1, 2, 0, 1]), lambda: tiny_ranker, fit, training_set, run)
    assert trained == {"fold-0": [1, 2, 4, 5, 7], "fold-1": [0, 2, 3, 5, 6], "fold-2": [0, 1, 3, 4, 6, 7]}
    assert saved == ["0", "1", "2"]


def test_without_a_dev_split_the_last_weights_are_saved(crossed: list[str], caplog: pytest.LogCaptureFixture) -> None:
    changes = ["data.splits=[train,test]", "data.dev_share=0", "training.steps=2", "evaluator.bm25=false"]
    assert main([*crossed, *changes, "run.dir=run"]) == 0
    training = report("run")["training"]
    assert (training["kept_step"], training["steps"], training["history"]) == (2, 2, [])
    assert caplog.text.count("has no split 'dev' with a relevant document") == 1


def test_sentence_transformers_scores_the_same(crossed: list[str], texts: list[str]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    assert main([*crossed, "loss=binary", "model.candidates=bm25", "training.epochs=1", "run.dir=run"]) == 0
    assert report("run")["systems"].keys() == {"base", "tuned"}  # BM25 is the base
    pairs = [(texts[0], text) for text in texts]
    theirs = sentence_transformers.CrossEncoder("run/model", device="cpu").predict(pairs)
    ours = CrossEncoder.load("run/model", precision="fp32", device="cpu").score(pairs)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_ranker_goes_on_from_its_own_head(crossed: list[str], ranker: str) -> None:
    changes = [f"model.path={ranker}", "model.max_length=32", "training.steps=1", "evaluator.bm25=false"]
    assert main([*crossed, *changes, "evaluator.production=train", "run.dir=run"]) == 0
    found = report("run")
    assert found["systems"].keys() == {"base", "tuned", "untuned"}
    assert found["production"]["systems"].keys() == found["systems"].keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["loss=infonce"], "loss: model=cross-encoder needs loss=listwise or loss=binary"),
        (["training=in-batch"], "training: model=cross-encoder needs training=lists"),
        (["task=evaluate"], "evaluator.systems.reranked.path=FOLDER to measure"),
        (["model=minilm", "loss=listwise"], "loss: is for model=cross-encoder"),
    ],
)
def test_what_does_not_go_together(change: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*(["model=cross-encoder"] if not change[0].startswith("model") else []), *change]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_cross_encoder_that_nobody_mined_for(crossed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rest = [word for word in crossed if not word.startswith("miner")]
    assert main([*rest, "miner=none", "run.dir=run"]) == 1
    assert "has no training query with a negative, and miner=none finds none" in capsys.readouterr().err
