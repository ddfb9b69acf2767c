"""`task=assess` from the command line, on a two-layer model and a collection of a few dozen texts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from transformers import BertConfig, BertModel

from embfit.app import main
from embfit.assess import trial, trial_gain
from embfit.assess.candidates import ModelCandidate
from embfit.assess.training_cost import training_cost
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import BM25System, RerankedSystem
from embfit.loss import InfoNCE
from embfit.miner import NoNegatives
from embfit.model import BiEncoder, Encoder, Pretrained, save_encoder
from embfit.records import Collection
from embfit.store import Store
from embfit.task.assess import _rerankers
from embfit.task.candidate_models import name_models
from embfit.training import Training
from tests.conftest import TEXTS, new_late_encoder

SPLITS = {"train": range(24), "test": range(24, 36)}


@pytest.fixture
def command(tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides that name a tiny model and thirty-six documents, half of them longer than it reads."""
    save_encoder(tiny_encoder, tmp_path / "tiny")
    folder = tmp_path / "collection"
    (folder / "qrels").mkdir(parents=True)
    texts = [f"{text} {ending}" for ending in ("often", "rarely", " in children" * 30) for text in TEXTS]
    documents = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(texts)]
    queries = [
        {"_id": f"q{row}", "text": " ".join([*text.split()[2:6], text.split()[-1]])} for row, text in enumerate(texts)
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, rows in SPLITS.items():
        lines = "".join(f"q{row}\td{row}\t1\n" for row in rows)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    monkeypatch.chdir(tmp_path)
    return [
        "task=assess",
        "model=custom",
        f"model.path={tmp_path / 'tiny'}",
        "model.precision=fp32",
        "data=beir",
        f"data.path={folder}",
        "training.batch_size=8",
        "training.epochs=2",
        "trainer=cpu",
        "miner=bm25",
        "evaluator.resamples=200",
        "task.chunk_sizes=[32]",
        "task.trial_steps=2",
        "task.timed_documents=16",
    ]


def test_everything_is_measured_and_one_thing_recommended(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = ["run.dir=run", f"task.models=[{tmp_path / 'tiny'}]", "task.price_per_hour=3600"]
    assert main([*command, *save]) == 0
    report = json.loads(Path("run/report.json").read_text())
    assert list(report["systems"]) == ["base", "tiny", "bm25", "hybrid", "weighted"]
    assert report["systems"]["tiny"]["metrics"] == report["systems"]["base"]["metrics"]
    found = report["assessment"]
    assert found["recommendation"].startswith("Improve the set-up before the model. Hybrid")
    assert found["action"] == "set-up"
    assert (found["cost"]["gain"]["metric"], found["cost"]["gain"]["queries"]) == ("ndcg@10", 2)
    assert [one["system"] for one in found["candidates"]] == ["base", "tiny"]
    base = found["candidates"][0]
    assert (base["dimensions"], base["bytes_per_document"], base["truncated"]) == (32, 128, pytest.approx(1 / 3))
    assert [one["name"] for one in found["chunks"]["settings"]] == ["cut off", "pieces of 32"]
    assert found["chunks"]["settings"][0]["metrics"] == report["systems"]["base"]["metrics"]
    here, first, second = found["cost"]["estimates"]
    assert (here["documents"], first["documents"], second["documents"]) == (36, 50_000, 100_000)
    assert here["train"] == pytest.approx(2 * 3 * found["cost"]["trial"]["step_seconds"])  # 22 examples in batches of 8
    assert second["train"] == pytest.approx(2 * first["train"])
    assert here["price"] == pytest.approx(here["total"])  # a second costs 1
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(found["recommendation"].split()) in shown
    page = Path("run/report.html").read_text()
    assert "What a fine-tuning would take" in page
    assert found["reasons"][0] in page


def test_a_model_that_cannot_be_measured_costs_the_others_nothing(
    command: list[str], tmp_path: Path, tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    """One is narrower than the dimensions asked for, one has no weights, one is not there."""
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    config = BertConfig(vocab_size=len(tiny_encoder.tokenizer), hidden_size=16, **size)
    narrow = BiEncoder(BertModel(config), tiny_encoder.tokenizer, tiny_encoder.settings, source="narrow")
    save_encoder(narrow, tmp_path / "narrow")
    save_encoder(tiny_encoder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    models = ",".join(str(tmp_path / name) for name in ("gone", "broken", "narrow"))
    words = [f"task.models=[{models}]", "evaluator.dims=[16,32]", "task.trial_steps=0", "task.systems=[]"]
    assert main([*command, *words, "run.dir=run"]) == 0
    report = json.loads(Path("run/report.json").read_text())
    assert list(report["systems"]) == ["base", "narrow"]
    assert list(report["systems"]["narrow"]["dims"]) == ["16"]
    failed = report["assessment"]["failed"]
    assert list(failed) == ["gone", "broken"]
    assert "there is no such folder" in failed["gone"]
    assert "cannot load" in failed["broken"]
    assert f"broken was not measured: {failed['broken']}" in report["assessment"]["reasons"]
    assert "gone is left out" in caplog.text


def test_late_interaction_is_weighed(command: list[str], tmp_path: Path, tokenizer) -> None:
    save_encoder(new_late_encoder(tokenizer), tmp_path / "late")
    words = ["task.trial_steps=0", "task.systems=[]", f"task.late={tmp_path / 'late'}", "run.dir=run"]
    words.append(f"task.models=[{tmp_path / 'late'}]")
    assert main([*command, *words]) == 0
    found = json.loads(Path("run/report.json").read_text())["assessment"]
    late = found["late"]
    assert "is a late-interaction model, which task.models cannot measure; task.late=" in found["failed"]["late"]
    assert late["rare_share"] == 1  # each word is in three documents
    assert late["cut_off_share"] == 1  # those asked for are the long ones
    assert (late["format"], late["bytes_per_token"]) == ("float16", 32)
    assert late["bytes_per_document"] == pytest.approx(32 * late["vectors_per_document"])
    assert late["times"] == pytest.approx(late["bytes_per_document"] / 128)
    assert (late["gain"]["documents"], late["gain"]["ci95"]) == (36, None)
    assert late["sentence"] in found["reasons"]
    assert "Late interaction" in Path("run/report.html").read_text()
    assert main([*command, "task.trial_steps=0", f"task.late={tmp_path / 'tiny'}", "run.dir=wrong"]) == 2


def test_without_a_trial_nothing_is_trained(command: list[str]) -> None:
    assert main([*command, "run.dir=run", "task.trial_steps=0", "task.systems=[bm25]"]) == 0
    found = json.loads(Path("run/report.json").read_text())["assessment"]
    assert (found["cost"]["trial"], found["cost"]["estimates"], found["cost"]["examples"]) == (
        None,
        [],
        22,
    )  # two are held out as dev
    assert "What a fine-tuning would take" not in Path("run/report.html").read_text()


def test_a_trial_trains_what_a_fine_tuning_would(
    tiny_encoder: Encoder, small_collection: Collection, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(tiny_encoder, tmp_path / "tiny")
    model = Pretrained(str(tmp_path / "tiny"), precision="fp32", freeze_layers=1)
    context = Retrieval().context(small_collection, store, model, ("cpu",))
    trained: list[str] = []

    def time_training(encoder: Encoder, *arguments: Any) -> trial.Trial:
        trained.extend(name for name, weight in encoder.named_parameters() if weight.requires_grad)
        return trial.Trial(2, 1.0, 1.0, 8, 1.0)

    monkeypatch.setattr(trial, "time_training", time_training)
    monkeypatch.setattr(trial_gain, "trial_gain", lambda *arguments: None)
    base = ModelCandidate("base", "tiny", 1000, 64, 32, 128, 10.0, 0.0)
    parts = {"miner": NoNegatives(), "loss": InfoNCE(), "training": Training(), "trainer": partial(pl.Trainer)}
    training_cost(context, **parts, resamples=10, steps=2, base=base, price_per_hour=None)
    layers = {name.split(".layer.")[1][0] for name in trained if ".layer." in name}
    assert layers == {"1"}  # of two, the lower one is frozen
    assert not [name for name in trained if "embeddings" in name]


def test_reranking_is_measured_once_it_has_a_cross_encoder() -> None:
    systems = {"bm25": BM25System(), "reranked": RerankedSystem(path="somewhere"), "idle": RerankedSystem()}
    assert _rerankers(Retrieval(systems=systems)) == ["reranked"]


def test_production_is_measured_beside_it(command: list[str], tmp_path: Path) -> None:
    qrels = tmp_path / "collection" / "qrels"
    (qrels / "users.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n - 1}\t1\n" for n in range(24, 30))
    )
    words = ["evaluator=production", "evaluator.production=users", f"task.models=[{tmp_path / 'tiny'}]"]
    assert main([*command, *words, "task.trial_steps=0", "task.systems=[bm25]", "run.dir=run"]) == 0
    found = json.loads(Path("run/report.json").read_text())
    systems = found["production"]["systems"]
    assert list(systems) == list(found["systems"]) == ["base", "tiny", "bm25"]
    assert systems["tiny"]["metrics"] == systems["base"]["metrics"]
    assert systems["base"]["queries"] == 6
    assert Path("run/rankings/tiny-users.trec").is_file()


def test_a_split_of_production_that_is_not_there_is_said_first(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "evaluator=production", "run.dir=run"]) == 1
    assert "evaluator.production=production: " in capsys.readouterr().err


def test_models_of_one_name_are_told_apart() -> None:
    assert name_models(["bm25", "other/bm25", "bm25/"], ["base", "bm25"]) == {
        "bm25-2": "bm25",
        "other/bm25": "other/bm25",
        "bm25/": "bm25/",
    }
    assert name_models(["a/small", "b/small", "a/small", "c/bm25"], ["base", "bm25"]) == {
        "small": "a/small",
        "b/small": "b/small",
        "c/bm25": "c/bm25",
    }
