"""Each task from the command line, on a two-layer model and a collection of a few dozen texts."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embfit.app import main
from embfit.model import Encoder, Pretrained
from embfit.training import Training
from tests.task.conftest import SPLITS, FineTuning


def report(folder: str) -> dict:
    return json.loads(Path(folder, "report.json").read_text())


def test_an_adapter_saved_alone_evaluates_as_it_did_when_it_was_trained(command: list[str]) -> None:
    adapter = [
        "model.lora.rank=8",
        "model.lora.merged=false",
        "training.lr=3e-2",
        "training.epochs=8",
        "training.patience=null",
    ]
    assert main([*command, *adapter, "run.dir=run"]) == 0
    assert sorted(path.name for path in Path("run/model").glob("*.safetensors")) == ["adapter_model.safetensors"]
    assert "pip install peft" in Path("run/model/README.md").read_text()
    tuned = report("run")["systems"]["tuned"]["metrics"]
    assert report("run")["training"]["kept_step"] > 0
    rest = [part for part in command if not part.startswith("model.path")]
    assert main([*rest, "task=evaluate", "model.path=run/model", "run.dir=again"]) == 0
    assert report("again")["systems"]["base"]["metrics"] == tuned


def test_finetune_leaves_what_scripts_rely_on(fine_tuning: FineTuning) -> None:
    found = report("run")
    assert list(found["systems"]) == ["base", "tuned", "bm25", "hybrid", "tuned_hybrid"]
    pairs = list(dict.fromkeys((one["a"], one["b"]) for one in found["comparisons"]))
    assert pairs == [("base", "tuned"), ("bm25", "tuned"), ("hybrid", "tuned"), ("hybrid", "tuned_hybrid")]
    assert {"ndcg@10", "mrr@10", "recall@10", "recall@100"} <= found["systems"]["base"]["metrics"].keys()
    assert {"pairs_per_second", "peak_memory_gb", "epochs"} <= found["training"].keys()
    assert (found["comparisons"][0]["a"], found["comparisons"][0]["b"]) == ("base", "tuned")
    assert json.loads(Path("run/status.json").read_text())["state"] == "done"
    assert sorted(path.name for path in Path("run/rankings").glob("*.trec")) == [
        *("base.trec", "bm25.trec", "hybrid.trec", "tuned.trec", "tuned_hybrid.trec")
    ]
    assert list(Path("run/tensorboard").glob("events*"))
    assert not Path("run/checkpoints").exists()
    assert f"{found['systems']['tuned']['metrics']['ndcg@10']:.4f}" in fine_tuning.output
    assert "run/model" in fine_tuning.output
    card = Path("run/model/README.md").read_text()
    assert f"| tuned | {found['systems']['tuned']['metrics']['ndcg@10']:.4f} |" in card
    assert found["data"]["corpus_sha256"] in card


@pytest.mark.usefixtures("fine_tuning")
def test_the_saved_model_is_the_one_that_was_measured(command: list[str]) -> None:
    assert main([*command, "task=evaluate", "model.path=run/model", "run.dir=again"]) == 0
    tuned, again = report("run")["systems"]["tuned"], report("again")["systems"]["base"]
    assert again["metrics"] == tuned["metrics"]
    assert again["per_query"] == tuned["per_query"]


def test_any_systems_are_compared_with_the_first(command: list[str]) -> None:
    evaluate = [*command, "task=evaluate", "evaluator.metrics=[ndcg@10]"]
    assert main([*evaluate, "task.systems=[base,bm25,hybrid]", "run.dir=one"]) == 0
    found = report("one")
    assert list(found["systems"]) == ["base", "bm25", "hybrid"]
    everything = [(one["a"], one["b"]) for one in found["comparisons"] if one["subset"] == "all"]
    assert everything == [("base", "bm25"), ("base", "hybrid")]
    assert all(one["p"] <= one["p_holm"] for one in found["comparisons"])
    assert [(one["a"], one["b"]) for one in found["changes"]] == everything
    file = "evaluator.systems.file.path=one/rankings/hybrid.trec"
    assert main([*evaluate, "task.systems=[file,bm25]", file, "run.dir=two"]) == 0
    assert report("two")["systems"]["file"]["metrics"] == found["systems"]["hybrid"]["metrics"]
    Path("other.qrels").write_text("q30 0 d30 0\nq30 0 d31 1\n")
    assert main([*evaluate, "task.systems=[file]", file, "task.qrels=other.qrels", "run.dir=three"]) == 0
    assert report("three")["systems"]["file"]["queries"] == 1
    assert Path("three/rankings/test.qrels").read_text() == "q30 0 d30 0\nq30 0 d31 1\n"
    path = next(word.partition("=")[2] for word in command if word.startswith("data.path="))
    assert main([*evaluate, "task.systems=[file]", file, f"task.qrels={path}/qrels/test.tsv", "run.dir=same"]) == 0
    assert report("same")["systems"]["file"]["metrics"] == found["systems"]["hybrid"]["metrics"]
    Path("other.qrels").write_text("q30 0 d99 1\n")
    assert main([*evaluate, "task.systems=[file]", file, "task.qrels=other.qrels", "run.dir=four"]) == 1


@pytest.mark.usefixtures("fine_tuning")
def test_fusion_beside_the_tuned_model_is_that_of_an_evaluation(command: list[str]) -> None:
    both = "+evaluator.systems.both={_target_: embfit.evaluator.systems.RankFusion, of: [tuned, bm25]}"
    evaluate = [*command, "task=evaluate", "tuned=run/model", both, "task.systems=[hybrid,both]"]
    assert main([*evaluate, "run.dir=again"]) == 0
    again, found = report("again")["systems"], report("run")["systems"]
    assert found["hybrid"]["per_query"] == again["hybrid"]["per_query"]
    assert found["tuned_hybrid"]["per_query"] == again["both"]["per_query"]


@pytest.mark.usefixtures("fine_tuning")
def test_sentence_transformers_measures_the_same(texts: list[str]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer("run/model", device="cpu").encode(texts)
    ours = Pretrained("run/model", precision="fp32").load("cpu").encode(texts, "document")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.usefixtures("fine_tuning")
def test_a_second_run_reuses_the_first(command: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert main([*command, "run.dir=two", "loss.temperature=0.02"]) == 0
    for kind in ("negatives", "rankings", "tokens"):
        assert f"reusing {kind} from the store" in caplog.text
    assert report("run")["systems"]["base"]["metrics"] == report("two")["systems"]["base"]["metrics"]


@pytest.mark.usefixtures("fine_tuning")
def test_the_same_seed_gives_the_same_numbers(command: list[str]) -> None:
    assert main([*command, "run.dir=two", "store.enabled=false"]) == 0
    assert report("run")["systems"] == {
        name: {**system, "facts": report("run")["systems"][name]["facts"]}
        for name, system in report("two")["systems"].items()
    }


def test_matryoshka_is_one_word(command: list[str]) -> None:
    assert main([*command, "run.dir=run", "loss=mrl", "loss.dims=[8,32]", "evaluator.dims=[8,32]"]) == 0
    assert report("run")["systems"]["tuned"]["dims"].keys() == {"8", "32"}


def test_a_loss_reads_the_words_of_its_batches(command: list[str]) -> None:
    steps = ["training.steps=2", "evaluator.metrics=[ndcg@10]"]
    assert main([*command, *steps, "loss=mrl", "loss.dims=[8,32]", "loss.loss.lexical=1", "run.dir=words"]) == 0
    assert main([*command, *steps, "loss=mrl", "loss.dims=[8,32]", "run.dir=plain"]) == 0
    with_words, plain = (report(name)["training"]["curve"][0]["loss"] for name in ("words", "plain"))
    assert with_words < 0.7 * plain  # each query is made of its document's words


def test_production_queries_are_set_beside_the_reported_ones(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    users = "".join(f"q{row}\td{row}\t1\n" for row in (1, 3, 5, 7, 31))
    (tmp_path / "collection/qrels/production.tsv").write_text("query-id\tcorpus-id\tscore\n" + users)
    evaluate = [*command, "task=evaluate", "evaluator=production", "evaluator.metrics=[ndcg@10]"]
    sources = "data.queries_from={train: a model, test: a model, production: users}"
    assert main([*evaluate, "evaluator.resamples=100", sources, "run.dir=run"]) == 0
    found = report("run")["production"]
    assert {gap["system"] for gap in found["gaps"]} == {"base", "bm25"}
    alone = ["evaluator=retrieval", "evaluator.split=production", "run.dir=alone"]
    assert main([*command, "task=evaluate", "evaluator.metrics=[ndcg@10]", *alone]) == 0
    assert found["systems"]["base"]["metrics"] == report("alone")["systems"]["base"]["metrics"]
    assert Path("run/rankings/base-production.trec").read_text() == Path("alone/rankings/base.trec").read_text()
    assert "come from a model, which made the training queries too" in caplog.text
    assert "production queries can show a difference of" in capsys.readouterr().out
    assert main([*command, "evaluator=production", "miner=none", "training.epochs=1", "run.dir=tuned"]) == 0
    tuned = report("tuned")
    assert (
        tuned["production"]["systems"]["base"]["metrics"]["ndcg@10"] == found["systems"]["base"]["metrics"]["ndcg@10"]
    )
    assert [(gain["a"], gain["b"]) for gain in tuned["production"]["gains"]] == [("base", "tuned"), ("base", "bm25")]
    assert tuned["production"]["gains"][0]["synthetic"] == pytest.approx(tuned["comparisons"][0]["difference"])


def test_the_funnel_says_what_quality_costs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    funnel = ["evaluator.dims=[8]", "evaluator.funnel=[5,36]", "evaluator.quality_kept=1"]
    assert main([*command, "task=evaluate", *funnel, "run.dir=run"]) == 0
    base = report("run")["systems"]["base"]
    whole, *others = base["funnel"]["settings"]
    assert whole["value"] == pytest.approx(base["metrics"]["ndcg@10"])
    assert (whole["dims"], whole["bytes_per_document"], len(others)) == (32, 128, 2 * 3 + 3 * 3)
    assert base["dims"]["8"]["bytes_per_document"] == 32
    cheapest = base["funnel"]["cheapest"]
    assert (cheapest["dims"], cheapest["format"], cheapest["share"]) == (8, "binary", 1.0)  # 36 of 36 ranked anew
    said = capsys.readouterr().out
    assert "by bytes in memory" in said
    assert "embfit index index=funnel index.dims=8 index.format=binary index.shortlist=36 bundle.name=NAME" in said


@pytest.mark.parametrize("miner", ["none", "random", "bm25", "dense"])
def test_mine_writes_negatives_for_people(command: list[str], miner: str) -> None:
    assert main([*command, "task=mine", f"miner={miner}", "run.dir=run"]) == 0
    lines = [json.loads(line) for line in Path("run/negatives.jsonl").read_text().splitlines()]
    assert [line["query"]["id"] for line in lines] == [f"q{row}" for row in SPLITS["train"]]
    facts = report("run")["mining"]
    assert facts["miner"] == miner
    assert facts["false_negatives"]["hidden"] == 0  # one positive a query
    assert len(facts["examples"]) == 20
    assert Path("run/negatives.parquet").is_file()
    assert any(line["negatives"] for line in lines) == (miner != "none")


def test_what_was_mined_is_reported_though_no_false_negatives_can_be_estimated(
    command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = SPLITS["train"][:3]
    with (tmp_path / "collection" / "qrels" / "train.tsv").open("a") as file:
        file.write(f"q{first}\td{second}\t1\n")  # the only query with two positives, and the run file lacks it
    (tmp_path / "them.trec").write_text(f"q{third} Q0 d{first} 1 1.0 them\nq{third} Q0 d{third} 2 0.5 them\n")
    path = f"miner.path={tmp_path / 'them.trec'}"
    assert main([*command, "task=mine", "miner=file", path, "miner.relative_margin=null", "run.dir=run"]) == 0
    assert report("run")["mining"]["mined"] == 1
    assert "false_negatives" not in report("run")["mining"]
    assert "ranks documents for none of the 1 training queries" in caplog.text


def test_a_fine_tuning_ends_with_a_command_on_the_same_data(fine_tuning: FineTuning) -> None:
    last = fine_tuning.output.splitlines()[-1]
    label, typed = last.split("   python -m embfit ")
    assert label in ("use it", "try it")  # as the verdict says
    words = shlex.split(typed)
    assert words[:3] == ["task=search", "query=...", "tuned=run/model"]
    assert words[3:] == [word for word in fine_tuning.command if word.startswith(("model", "data", "store"))]
    assert main([*words, "run.dir=search"]) == 0


@pytest.mark.usefixtures("fine_tuning")
def test_search_shows_base_and_tuned(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    search = [*command, "task=search", "query=kidneys filter the blood", "task.documents=2"]
    assert main([*search, "run.dir=first"]) == 0
    assert "tuned" not in capsys.readouterr().out.splitlines()[2]
    shutil.move("run", "outputs/finetune/run")
    assert main([*search, "run.dir=second"]) == 0
    shown = capsys.readouterr().out
    assert "base" in shown
    assert "tuned" in shown
    assert "kidneys filter the blood" in shown


@pytest.mark.usefixtures("fine_tuning")
def test_ctrl_c_in_training_and_on_again(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Training.fit

    def interrupted(*arguments: object, **named: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "fit", interrupted)
    assert main([*command, "run.dir=stopped"]) == 130
    assert json.loads(Path("stopped/status.json").read_text())["state"] == "interrupted"
    monkeypatch.setattr(Training, "fit", whole)
    assert main(["resume=stopped"]) == 0
    assert report("stopped")["systems"]["tuned"]["metrics"] == report("run")["systems"]["tuned"]["metrics"]


def test_a_failure_after_training_does_not_train_again(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    whole = Training.fit

    def counted(*arguments: object, **named: object) -> object:
        trained.append(1)
        return whole(*arguments, **named)

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(Training, "fit", counted)
    with monkeypatch.context() as patch:
        patch.setattr("embfit.task.reporting.write_report", full)
        assert main([*command, "run.dir=run"]) == 1
    assert main([*command, "run.dir=run", "seed=7"]) == 2  # it would take the place of the model
    assert main([*command, "run.dir=run"]) == 0
    assert len(trained) == 1
    assert report("run")["training"]["steps"] == 6


def test_without_a_dev_split_the_last_weights_are_saved(
    command: list[str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["data.splits=[train,test]", "data.dev_share=0", "evaluator.bm25=false", "run.dir=run"]
    assert main([*command, *changes]) == 0, capsys.readouterr().err
    training = report("run")["training"]
    assert (training["kept_step"], training["steps"], training["history"]) == (6, 6, [])
    assert caplog.text.count("has no split 'dev' with a relevant document") == 1
    card = Path("run/model/README.md").read_text()
    assert "the weights are those of step 6." in card
    assert main([*command, "task=evaluate", "model.path=run/model", "run.dir=again"]) == 0
    assert report("again")["systems"]["base"]["metrics"] == report("run")["systems"]["tuned"]["metrics"]


def test_long_documents_are_counted(command: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert main([*command, "task=evaluate", "model.max_length=8", "run.dir=run"]) == 0
    assert report("run")["data"]["truncated_documents"] == 36
    assert "36 of 36 documents are longer than 8 tokens" in caplog.text


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["data.path=nowhere"], 1, "nowhere: there is no such file or folder (data.path)"),
        (
            ["evaluator.split=tets"],
            1,
            "evaluator.split=tets: collection has no split 'tets'; did you mean 'test'? its splits: dev, test, train",
        ),
        (["evaluator.production=production"], 1, "evaluator.production=production: collection has no split"),
        (["evaluator.dev_split=dve"], 1, "evaluator.dev_split=dve: collection has no split 'dve'; did you mean 'dev'?"),
        (["task=evaluate", "evaluator.split=tets"], 1, "evaluator.split=tets: collection has no split 'tets'; did"),
        (["task=assess", "evaluator.split=tets"], 1, "evaluator.split=tets: collection has no split 'tets'; did"),
        (["model.path=./nowhere"], 2, "model.path: ./nowhere: there is no such file or folder"),
        (["training.epoch=3"], 2, "did you mean 'epochs'?"),
        (["evaluator.split=dev"], 2, "dev is evaluator.dev_split too"),
        (["evaluator.production=dev"], 2, "dev is evaluator.dev_split too"),
        (["evaluator.dev_split=test"], 2, "test is evaluator.dev_split too"),
        (["task=evaluate", "task.systems=[base,hybird]"], 2, "did you mean 'hybrid'?"),
        (["model.freeze_layers=2"], 1, "model.freeze_layers=2 leaves none of the 2 layers to train; 1 at most"),
        (["loss=mrl", "loss.dims=[64]"], 2, "more than the model's 32 dimensions"),
    ],
)
def test_bad_input_is_one_message(
    command: list[str], change: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *change, "run.dir=run"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert "no split" not in message or "load model" not in error  # it is said before any work


@pytest.mark.parametrize("task", ["finetune", "mine", "assess", "evaluate", "search"])
def test_a_gpu_that_is_not_there_is_missed_before_anything_is_loaded(
    command: list[str], task: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    typed = [*command, f"task={task}", "trainer=gpu", "data.path=nowhere", "query=words", "run.dir=run"]
    assert main(typed) == 1
    assert "trainer.accelerator=gpu: PyTorch finds none here; set trainer=cpu" in capsys.readouterr().err


def test_cls_pooling_is_a_word_of_the_model(make_encoder: Callable[..., Encoder], command: list[str]) -> None:
    assert main([*command, "task=evaluate", "run.dir=mean"]) == 0
    assert main([*command, "task=evaluate", "model.pooling=cls", "run.dir=cls"]) == 0
    assert report("mean")["systems"]["base"]["per_query"] != report("cls")["systems"]["base"]["per_query"]
