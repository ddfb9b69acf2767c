"""`model=colbert` from start to report, by the tasks that every model goes through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from embfit.app import main
from embfit.evaluator.metrics import Metric
from embfit.model import LateInteraction


@pytest.fixture
def colbert(command: list[str]) -> list[str]:
    """The overrides of the tasks' command, for a late-interaction model of the same tiny encoder."""
    settings = ["model.dim=16", "model.query_length=16", "model.document_length=24", "loss.temperature=0.03"]
    return [*(word.replace("model=custom", "model=colbert") for word in command), *settings, "training.lr=1e-2"]


def report(folder: str) -> dict:
    return json.loads((Path(folder) / "report.json").read_text())


def by_hand(folder: Path, collection: Path) -> float:
    """nDCG@10 on the test split of the saved model, by a plain loop over queries and documents."""
    encoder = LateInteraction(str(folder), precision="fp32").load("cpu")
    rows = {
        name: [json.loads(line) for line in (collection / f"{name}.jsonl").open()] for name in ("corpus", "queries")
    }
    judged = dict(line.split("\t")[:2] for line in (collection / "qrels" / "test.tsv").read_text().splitlines()[1:])
    documents = encoder.embed([row["text"] for row in rows["corpus"]], "document")
    found = []
    for row in rows["queries"]:
        if row["_id"] not in judged:
            continue
        query = encoder.embed([row["text"]], "query").rows
        scores = [
            float((query @ documents.part(place, place + 1).rows.T).max(axis=1).mean())
            for place in range(len(documents))
        ]
        rank = int(np.argsort(-np.array(scores), kind="stable").tolist().index(int(judged[row["_id"]][1:])))
        found.append(1 / np.log2(rank + 2) if rank < 10 else 0.0)
    return float(np.mean(found))


def test_from_start_to_report(colbert: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*colbert, "run.dir=run"]) == 0
    systems = report("run")["systems"]
    base, tuned = (systems[name]["metrics"][str(Metric.parse("ndcg@10"))] for name in ("base", "tuned"))
    collection = Path(next(word for word in colbert if word.startswith("data.path=")).removeprefix("data.path="))
    assert tuned == pytest.approx(by_hand(Path("run/model"), collection), abs=1e-6)
    assert tuned > base
    card = Path("run/model/README.md").read_text()
    assert 'MultiVectorEncoder("FOLDER")' in card
    assert "library_name: PyLate" in card

    # the saved model, beside the base and named by its folder alone; both answer a query
    assert main([*colbert, "task=evaluate", "task.systems=[base,tuned]", "tuned=run/model", "run.dir=again"]) == 0
    assert report("again")["systems"]["tuned"]["metrics"]["ndcg@10"] == pytest.approx(tuned, abs=1e-6)
    capsys.readouterr()
    assert main([*colbert, "task=search", "query=heart pumps", "tuned=run/model", "run.dir=asked"]) == 0
    shown = capsys.readouterr().out
    assert "tuned" in shown
    assert "own tokens" in shown
    assert "%" in shown


def explored(folder: str) -> dict:
    page = (Path(folder) / "report.html").read_text()
    (data,) = re.findall(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)


def test_the_report_says_which_words_matched_and_what_an_index_costs(colbert: list[str]) -> None:
    assert main([*colbert, "training.steps=2", "run.dir=run"]) == 0
    explorer = explored("run")
    for query in explorer["queries"]:
        for system, matched in zip(explorer["systems"], query["matched"], strict=True):
            scored_by_words = system in ("base", "tuned")  # BM25 and fusions have no vectors of words
            assert len(matched) == (min(3, len(query["ranked"][0])) if scored_by_words else 0)
            for told in matched:
                assert sum(share for _, _, share in told["words"]) + told["own"] == pytest.approx(1, abs=0.05)
    assert "index" not in report("run")["systems"]["base"]

    systems = ["task=evaluate", "task.systems=[base,late,late_reranked,late_weighted]", "run.dir=again"]
    assert (
        main(
            [
                *(word for word in colbert if not word.startswith("training.")),
                *systems,
                "evaluator.systems.late.path=run/model",
            ]
        )
        == 0
    )
    found = report("again")["systems"]
    assert list(found) == ["base", "late", "late_reranked", "late_weighted"]
    assert found["late"]["index"]["bytes_per_token"] == found["base"]["index"]["bytes_per_token"] == 16 * 4
    assert "bytes/document" in Path("again/report.html").read_text()


def test_it_teaches_a_model_of_one_vector_a_text(colbert: list[str], command: list[str]) -> None:
    assert main([*colbert, "training.steps=1", "run.dir=run"]) == 0
    words = [word for word in command if not word.startswith("miner")]
    words += ["loss=distill", "miner=scored", "miner.model=run/model", "training.steps=1", "run.dir=taught"]
    assert main(words) == 0
    assert report("taught")["mining"]["teacher_scores"] > 0


def test_it_mines_with_itself_and_guides_itself_and_learns_prefixes(colbert: list[str]) -> None:
    words = ["loss=mrl", "loss.dims=[8,16]", "training.guide=base", "training.batching=topical", "training.steps=2"]
    words.remove("loss=mrl")
    nested = [word.replace("loss.temperature", "loss.loss.temperature") for word in colbert]
    assert main([*nested, "loss=mrl", *words, "evaluator.dims=[8]", "run.dir=run"]) == 0
    tuned = report("run")["systems"]["tuned"]
    assert set(tuned["dims"]) == {"8"}
    assert 0 < tuned["dims"]["8"]["metrics"]["ndcg@10"] <= 1


def test_another_models_tokens_mine_for_one_vector_a_text(colbert: list[str], command: list[str]) -> None:
    path = next(word for word in command if word.startswith("model.path=")).removeprefix("model.path=")
    words = ["model@miner.encoder=colbert", f"miner.encoder.path={path}", "miner.encoder.dim=16"]
    assert main([*command, "task=mine", *words, "miner.encoder.document_length=24", "run.dir=mined"]) == 0
    assert Path("mined/negatives.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.dim=20"], "model.dim: expected a whole number of at least 8 and divisible by 8"),
        (["model.document_length=100"], "model.document_length=100 exceeds the 64 positions"),
        (["model.training_document_length=30"], "exceeds model.document_length=24; lower it"),
        (["model.expansion=min"], "model.expansion: expected one of fixed, none or null"),
        (["model.pooling=cls"], "model.pooling"),
        (["task=assess"], "task.late=FOLDER measures late interaction beside it"),
        (["loss.document_document=true"], "loss.document_document=true compares all vectors"),
    ],
)
def test_bad_settings_are_one_message(
    words: list[str], said: str, colbert: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*colbert, *words, "run.dir=run"]) == 2
    told = " ".join("".join(capsys.readouterr()).split())
    assert said in told
    assert "Traceback" not in told
