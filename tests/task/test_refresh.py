"""`task=refresh`: what changed decides what is done, and the gates decide what is served."""

from __future__ import annotations

import ast
import json
import re
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

import embfit
from embfit.app import main
from embfit.bundle import BundleVersions
from embfit.bundle.changes import DocumentChanges, training_digest
from embfit.bundle.gates import Gates, SameQueries
from embfit.bundle.seen_documents import SeenDocuments
from embfit.model import save_encoder
from embfit.records import Evaluation, Ranking, Report
from embfit.task.refresh_plan import plan_refresh
from embfit.task.refresh_queries import TrainedOn
from tests.conftest import make_collection, new_encoder
from tests.server.conftest import serving, until
from tests.server.test_server import together
from tests.task.conftest import write_command

REFRESH = ["refresh", "bundle.name=docs", "training.epochs=1", "evaluator.bm25=false"]
ROOT = Path(__file__).parents[2]


class First(NamedTuple):
    """A first refresh: its command line, and the folder that it was typed in."""

    command: list[str]
    home: Path


@pytest.fixture(scope="module")
def _first(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> First:
    home = tmp_path_factory.mktemp("first")
    command = [*REFRESH, *write_command(home, tokenizer)[:-2], "trainer=cpu", "evaluator.resamples=200"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.chdir(home / "work")
        assert main([*command, "training.epochs=1", "run.dir=one"]) == 0
    return First(command, home)


class Team:
    """A team's data, which it changes, and its bundle of one version."""

    def __init__(self, first: First, folder: Path) -> None:
        self.data = folder / "collection"
        self.command = [f"data.path={self.data}" if word.startswith("data.path=") else word for word in first.command]
        self.versions = BundleVersions(Path("bundles"), "docs")

    def add_document(self, name: str, text: str) -> None:
        with (self.data / "corpus.jsonl").open("a") as file:
            file.write(json.dumps({"_id": name, "title": "", "text": text}) + "\n")

    def add_pair(self, query: str, text: str, document: str) -> None:
        with (self.data / "queries.jsonl").open("a") as file:
            file.write(json.dumps({"_id": query, "text": text}) + "\n")
        with (self.data / "qrels" / "train.tsv").open("a") as file:
            file.write(f"{query}\t{document}\t1\n")

    def refresh(self, run: str, *more: str) -> tuple[int, dict[str, Any]]:
        code = main([*self.command, f"run.dir={run}", *more])
        verdict = Path(run) / "verdict.json"
        return code, json.loads(verdict.read_text()) if verdict.is_file() else {}


@pytest.fixture
def team(_first: First, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    shutil.copytree(_first.home, tmp_path / "team", symlinks=True)
    monkeypatch.chdir(tmp_path / "team" / "work")
    return Team(_first, tmp_path / "team")


def test_the_first_refresh_trains_and_promotes(team: Team) -> None:
    verdict = json.loads(Path("one/verdict.json").read_text())
    assert (verdict["decision"], verdict["model"], verdict["champion"]) == ("promoted", "trained", 1)
    assert (verdict["documents"], verdict["added"], verdict["champion_before"]) == (36, 36, None)
    report = json.loads(Path("one/report.json").read_text())
    assert verdict["versions"][0]["metrics"] == report["systems"]["tuned"]["metrics"]  # the index's search is exact
    assert {"train", "make version", "promote"} <= verdict["seconds"].keys()
    assert len(team.versions.manifest().trained_on) == 64


def test_nothing_changed(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    code, verdict = team.refresh("two")
    assert (code, verdict["decision"], verdict["champion"]) == (0, "unchanged", 1)
    assert verdict["versions"] == []
    printed = capsys.readouterr().out
    assert "documents  36: none changed since docs@1" in printed
    assert "docs@1 is up to date and stays champion" in printed
    assert team.versions.numbers() == [1]


def test_documents_changed_and_pairs_did_not(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = team.data / "corpus.jsonl"
    corpus.write_text("".join(line for line in corpus.read_text().splitlines(True) if '"d35"' not in line))
    judged = team.data / "qrels" / "test.tsv"
    judged.write_text("".join(line for line in judged.read_text().splitlines(True) if "d35" not in line))
    team.add_document("new", "penguins cannot fly")
    code, verdict = team.refresh("two")
    assert (code, verdict["decision"], verdict["model"]) == (0, "promoted", "kept")
    assert (verdict["added"], verdict["changed"], verdict["removed"]) == (1, 0, 1)
    first, second = team.versions.manifest(1), team.versions.manifest()
    assert (second.version, second.documents.encoded, second.documents.reused) == (2, 1, 35)
    assert (second.model.query, second.trained_on) == (first.model.query, first.trained_on)
    assert team.versions.pointers() == {"champion": 2, "previous": 1}
    assert "passed  loss: the model is that of docs@1, on other documents" in capsys.readouterr().out
    assert embfit.load("bundles/docs").search("penguins cannot fly", 1)[0].id == "new"
    assert json.loads(Path("two/report.json").read_text())["task"] == "refresh"


def test_a_server_takes_up_a_refresh_and_a_rollback_under_load(team: Team) -> None:
    team.add_document("new", "penguins cannot fly")
    asking, answers = threading.Event(), Counter[tuple[str, bool]]()
    with serving(team.versions) as served:

        def ask() -> None:
            with httpx2.Client(base_url=served.client.base_url, timeout=60) as client:
                while not asking.is_set():
                    answer = client.post("/v1/search", json={"query": "penguins cannot fly", "k": 1})
                    first = answer.json()["data"][0]["documents"][0]["id"]
                    answers[answer.headers["x-embfit-bundle"], first == "new"] += 1

        thread = together(ask)
        try:
            assert team.refresh("two")[0] == 0
            until(lambda: answers["docs@2", True] > 5)
            assert main(["bundle", "rollback", "docs"]) == 0
            until(lambda: served.service.live.label == "docs@1")
        finally:
            asking.set()
            thread.join()
    assert answers.keys() == {("docs@1", False), ("docs@2", True)}  # every answer is one version's


def test_a_dry_run_does_nothing(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.add_document("new", "penguins cannot fly")
    team.add_pair("asked", "which birds stay on the ground", "new")
    assert team.refresh("two", "task.dry_run=true") == (0, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["documents  37: 1 new since docs@1", "pairs      new for docs@1"]
    assert re.fullmatch(
        r"to do      train from the weights of docs@1 \(\d+ s the last time\), make a version \(\d+ s the last time\), "
        "check it against the gates",
        lines[2],
    )
    assert team.versions.numbers() == [1]
    assert team.refresh("three", "task.dry_run=true", "task.train=never") == (0, {})
    assert "to do      make a version" in capsys.readouterr().out


@pytest.fixture
def tuned_to(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Let the next fine-tuning end at once, with other weights, and measure what it is told."""

    def replaced(base: list[float], tuned: list[float]) -> list[Any]:
        started_from: list[Any] = []

        def finetune(**given: Any) -> Report:
            run = given["run"]
            started_from.append(given["model"])
            encoder = new_encoder(tokenizer)
            with torch.no_grad():
                for weights in encoder.parameters():
                    weights.add_(0.01)
            save_encoder(encoder, run.dir / "model")
            found = [
                Evaluation(name, "test", {}, {"ndcg@10": {f"q{n}": value for n, value in enumerate(values)}}, {}, NONE)
                for name, values in (("base", base), ("tuned", tuned))
            ]
            return Report("finetune", found, [])

        monkeypatch.setattr("embfit.task.refresh.finetune", finetune)
        return started_from

    return replaced


NONE = Ranking({})


def test_new_pairs_train_the_champion_further(team: Team, tuned_to: Any, capsys: pytest.CaptureFixture[str]) -> None:
    team.add_pair("asked", "the pump of the body", "d0")
    models = tuned_to([0.5] * 30, [0.6] * 30)
    code, verdict = team.refresh("two", "model.freeze_layers=1", "model.max_length=16")
    assert (code, verdict["decision"], verdict["model"], verdict["champion"]) == (0, "promoted", "trained", 2)
    assert Path(models[0].path).resolve() == Path("bundles/docs/1/model").resolve()
    assert (models[0].freeze_layers, models[0].max_length) == (1, None)  # how it is trained; its own length
    assert (
        "passed  loss: ndcg@10 +0.1000 against the model of docs@1 on these documents, "
        "95 % interval +0.1000 to +0.1000; limit -0.02"
    ) in capsys.readouterr().out
    assert team.versions.manifest().trained_on != team.versions.manifest(1).trained_on
    assert team.refresh("three")[1]["decision"] == "unchanged"


def test_a_refused_model_does_not_keep_documents_out(team: Team, tuned_to: Any) -> None:
    team.add_document("new", "penguins cannot fly")
    team.add_pair("asked", "which birds stay on the ground", "new")
    tuned_to([0.5] * 30, [0.4] * 30)
    code, verdict = team.refresh("two")
    assert (code, verdict["decision"], verdict["model"], verdict["champion"]) == (0, "promoted", "kept", 3)
    assert [one["promoted"] for one in verdict["versions"]] == [False, True]
    failed = [gate for gate in verdict["versions"][0]["gates"] if not gate["passed"]]
    assert [gate["gate"] for gate in failed] == ["loss"]
    assert team.versions.manifest().trained_on == team.versions.manifest(1).trained_on  # so it is trained again


def test_refused_without_a_fallback(team: Team, tuned_to: Any, capsys: pytest.CaptureFixture[str]) -> None:
    team.add_pair("asked", "the pump of the body", "d0")
    tuned_to([0.5] * 30, [0.4] * 30)
    code, verdict = team.refresh("two")
    assert (code, verdict["decision"], verdict["model"], verdict["champion"]) == (1, "refused", None, 1)
    assert (
        "docs@2 is not promoted: FAILED loss: ndcg@10 -0.1000 against the model of docs@1 on these documents"
    ) in " ".join(capsys.readouterr().err.split())
    assert team.versions.pointers() == {"champion": 1, "challenger": 2}


def test_a_run_that_goes_on_publishes_no_version_twice(
    team: Team, tuned_to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.add_document("new", "penguins cannot fly")

    def killed(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("embfit.task.refresh.promote", killed)
        assert team.refresh("two")[0] == 130
    assert team.versions.pointers() == {"champion": 1, "challenger": 2}
    code, verdict = team.refresh("two")
    assert (code, verdict["decision"], verdict["champion"]) == (0, "promoted", 2)
    assert (team.versions.numbers(), team.versions.pointers()) == ([1, 2], {"champion": 2, "previous": 1})
    report = json.loads(Path("two/report.json").read_text())
    assert report["systems"]["bundle"]["metrics"] == verdict["versions"][0]["metrics"]
    team.add_pair("asked", "the pump of the body", "d0")  # a refused run that a scheduler tries again
    tuned_to([0.5] * 30, [0.4] * 30)
    for _ in range(2):
        code, verdict = team.refresh("three")
        assert (code, verdict["decision"], [one["version"] for one in verdict["versions"]]) == (1, "refused", [3])
    assert team.versions.numbers() == [1, 2, 3]
    damaged = team.versions.path(3) / "documents.arrow"
    damaged.chmod(0o644)
    damaged.write_bytes(b"nothing")
    assert team.refresh("three")[1]["versions"][0]["version"] == 4


def test_a_query_adapter_leaves_the_documents_as_they_are(team: Team) -> None:
    team.add_pair("asked", "the pump of the body", "d0")
    code, verdict = team.refresh("two", "model.query_adapter={rank: 4, epochs: 2}", "bundle.gates.loss=null")
    assert (code, verdict["decision"], verdict["model"]) == (0, "promoted", "trained")
    first, second = team.versions.manifest(1), team.versions.manifest(2)
    assert (first.model.document, second.documents.encoded) == (second.model.document, 0)
    report = json.loads(Path("two/report.json").read_text())
    assert [point.keys() for point in report["training"]["curve"]] == [{"step", "loss", "accuracy", "lr"}] * 2
    assert "Accuracy in the batch" in Path("two/report.html").read_text()


def test_a_model_of_another_kind_is_refused(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.add_pair("asked", "the pump of the body", "d0")
    colbert = ["model=colbert", "model.precision=fp32"]
    assert team.refresh("two", *colbert)[0] == 2
    assert "model is a LateInteraction, and that of docs@1 a Pretrained; choose a model of its kind" in " ".join(
        capsys.readouterr().err.split()
    )


def test_an_index_that_does_not_suit_the_model_is_refused_before_training(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.add_pair("which itch", "an itch of the skin", "d0")
    assert main([*team.command, "index=tokens", "task.train=always", "run.dir=two"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "index=tokens is for one vector a token, and this model gives one a text" in said
    assert not Path("two/model").exists()
    assert json.loads(Path("two/status.json").read_text())["state"] == "failed"
    assert team.versions.numbers() == [1]


def test_documents_alone_make_a_first_version(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "birds.md").write_text("# Birds\n\nPenguins cannot fly.\n")
    (folder / "fish.md").write_text("# Fish\n\nEels swim to the sea of weeds.\n")
    words = [word for word in command if not word.startswith("data")]
    refresh = ["refresh", *words, "data=documents", f"data.path={folder}", "bundle.name=handbook"]
    assert main([*refresh, "run.dir=one"]) == 0
    assert "pairs      none to train on" in capsys.readouterr().out
    (folder / "birds.md").write_text("# Birds\n\nPenguins cannot fly, and swim.\n")
    assert main([*refresh, "run.dir=two"]) == 0
    assert "documents  2: 1 new, 1 removed since handbook@1" in capsys.readouterr().out
    assert BundleVersions(Path("bundles"), "handbook").manifest().documents.encoded == 1


def test_with_a_generator_other_documents_are_other_pairs() -> None:
    versions = BundleVersions(Path("none"), "docs")

    def pairs(*texts: str, generates: bool = True) -> tuple[str, bool]:
        documents = {f"d{row}": text for row, text in enumerate(texts)}
        plan = plan_refresh(versions, make_collection(documents, {}, {}), "auto", generates)
        return plan.pairs, plan.trains

    assert pairs("one", "two", generates=False) == ("", False)
    assert pairs("one", "two")[1] is True
    assert pairs("one", "two") == pairs("two", "one") != pairs("one", "three")


def test_changes_and_pairs() -> None:
    changes = DocumentChanges.between({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"4", "d": b"5"})
    assert (changes.added, changes.removed, changes.changed, changes.unchanged) == (["d"], ["c"], ["b"], 1)
    assert not DocumentChanges.between({"a": b"1"}, {"a": b"1"})

    def digest(text: str = "one", query: str = "asked", names: str = "ab", grade: int = 1) -> str:
        documents = dict(zip(names, (text, "two"), strict=True))
        judged = {"train": {"q": {names[0]: grade}}, "test": {}}
        return training_digest(make_collection(documents, {"q": query}, judged))

    assert digest() == digest(names="xy")  # ids do not matter
    assert len({digest(), digest(text="other"), digest(query="other"), digest(grade=2)}) == 4
    assert digest(grade=0) == ""


def test_the_champion_is_measured_again_only_where_it_is_still_champion(team: Team) -> None:
    folder = team.versions.path(1)
    shutil.copytree(folder, "other")
    manifest = Path("other/manifest.json")
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace(team.versions.manifest().model.query, "0" * 64))
    same = SameQueries(1, dict.fromkeys("abcdefgh", 0.5), dict.fromkeys("abcdefgh", 0.4))
    gates = Gates(recall=None, churn=None)
    [found] = gates.check(Path("other"), folder, same)
    assert (found.passed, found.said[:15]) == (False, "ndcg@10 -0.1000")
    [found] = gates.check(Path("other"), folder, replace(same, champion=2))
    assert (found.passed, found.said[:15]) == (True, "ndcg@10 +0.0000")  # as published


def generated(*queries: tuple[str, str, str, str | None]) -> dict[str, list[str | None]]:
    names = ("_id", "text", "document_id", "dropped_by")
    return {name: [query[place] for query in queries] for place, name in enumerate(names)}


def test_queries_about_documents_that_the_champion_was_trained_on_compare_nothing(tmp_path: Path) -> None:
    rows = generated(
        ("t1", "a heart pumps", "d1", None),
        ("t2", "what a kidney does", "d2", None),
        ("t3", "A heart pumps?", "d3", None),  # merged with the first
        ("r1", "the liver makes bile", "d4", None),
        ("r2", "bones break", "d5", "round_trip"),
    )
    pq.write_table(pa.table(rows), tmp_path / "queries.parquet")
    values = {"base": {"t1": 0.4, "t2": 0.6}, "tuned": {"t1": 0.5, "t2": 0.9}}
    found = [Evaluation(name, "test", {}, {"ndcg@10": one}, {}, NONE) for name, one in values.items()]
    report = Report("finetune", found, [])
    labels = make_collection({"d6": "one", "d2": "two"}, {"q": "x"}, {"train": {"q": {"d6": 1, "d2": 1}}})
    fair = TrainedOn.of(report, tmp_path, labels, 1, frozenset())
    assert fair.documents == {"d4", "d6"}
    assert fair.compared == SameQueries(1, values["base"], values["tuned"])
    edited = TrainedOn.of(report, tmp_path, labels, 1, {"d3"})
    assert edited.compared == SameQueries(1, {"t2": 0.6}, {"t2": 0.9}, left_out=1)


@pytest.fixture
def unjudged(team: Team) -> Path:
    """The folder of a version that nothing is judged of."""
    folder = team.versions.path(1)
    shutil.copytree(folder, "unjudged")
    manifest = Path("unjudged/manifest.json")
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"quality": None, "version": 2}))
    return Path("unjudged")


def test_the_floor_holds_against_generated_queries_where_none_is_judged(team: Team, unjudged: Path) -> None:
    gates, champion = Gates(floor=0.5, loss=None, recall=None, churn=None), team.versions.path(1)
    same = SameQueries(1, {"a": 0.2, "b": 0.4}, {"a": 0.5, "b": 0.9})
    [found] = gates.check(unjudged, champion, same)
    assert (found.passed, found.said) == (True, "ndcg@10 of 2 generated queries 0.7000, limit 0.5")
    [found] = gates.check(unjudged, champion, replace(same, after=same.before))
    assert (found.passed, found.said) == (False, "ndcg@10 of 2 generated queries 0.3000, limit 0.5")
    [found] = gates.check(unjudged, champion)
    assert (found.passed, found.said) == (False, "ndcg@10 was not measured, and 0.5 is asked for")
    manifest = unjudged / "manifest.json"
    manifest.write_text(manifest.read_text().replace(team.versions.manifest().documents.sha256, "0" * 64))
    [found] = gates.check(unjudged, champion)
    assert found.passed
    assert found.said == "no query is judged, and the model is that of docs@1, on other documents"


def test_what_is_left_out_of_the_comparison_is_told(team: Team, unjudged: Path) -> None:
    manifest = unjudged / "manifest.json"
    manifest.write_text(manifest.read_text().replace(team.versions.manifest().model.query, "0" * 64))
    gates = Gates(recall=None, churn=None)
    some = SameQueries(1, dict.fromkeys("abcdefgh", 0.5), dict.fromkeys("abcdefgh", 0.6), left_out=2)
    [found] = gates.check(unjudged, team.versions.path(1), some)
    assert found.passed
    assert found.said.endswith("limit -0.02; 2 queries left out, since docs@1 was trained on their documents")
    [found] = gates.check(unjudged, team.versions.path(1), SameQueries(1, {}, {}, left_out=2))
    assert found.said == "not compared with docs@1: 2 queries left out, since docs@1 was trained on their documents"


def test_a_version_hands_on_the_documents_that_its_model_has_seen(team: Team, tuned_to: Any) -> None:
    trained = {f"d{row}" for row in range(24)}
    first = SeenDocuments.read(team.versions.path(1))
    assert (len(first), first.among([f"d{row}" for row in range(36)], [])) == (24, trained)
    team.add_document("new", "penguins cannot fly")
    assert team.refresh("two")[1]["model"] == "kept"
    assert len(SeenDocuments.read(team.versions.path(2))) == 24
    team.add_pair("asked", "which birds stay on the ground", "new")
    tuned_to([0.5] * 30, [0.6] * 30)
    assert team.refresh("three")[1]["model"] == "trained"
    assert SeenDocuments.read(team.versions.path(3)).among(["d0", "new", "d30"], []) == {"d0", "new"}


def test_the_guides_snippets_can_be_read() -> None:
    guide = (ROOT / "docs" / "refresh.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(cron|python|yaml)\n(.*?)^```", guide, re.MULTILINE | re.DOTALL))
    minute, hour, *days, command = blocks["cron"].split(maxsplit=5)
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, days) == (True, True, ["*", "*", "*"])
    assert "embfit refresh data=documents" in command
    calls = [node for node in ast.walk(ast.parse(blocks["python"])) if isinstance(node, ast.Call)]
    assert [getattr(call.func, "id", None) for call in calls[:2]] == ["DAG", "BashOperator"]
    workflow = yaml.safe_load(blocks["yaml"])
    steps = workflow["jobs"]["refresh"]["steps"]
    assert [step["run"].split()[0] for step in steps[1:]] == ["embfit", "cat"]
