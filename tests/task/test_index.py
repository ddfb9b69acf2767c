"""`task=index`, as it is typed: from a collection on the disk to versions that answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embfit
from embfit.app import main
from embfit.bundle import BundleVersions
from embfit.task.trained_dims import trained_dims
from tests.task.test_search import finished


def test_versions_of_a_collection(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    index = ["index", *command, "bundle.name=docs", "bundle.dims=[8,16]"]
    assert main([*index, "run.dir=first"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "docs@1 is champion" in printed
    assert any(line.split() == ["bundle", "bundles/docs/1"] for line in printed)
    report = json.loads(Path("first/report.json").read_text())
    assert report["bundle"]["version"] == 1
    assert report["systems"]["bundle"]["metrics"]["recall@100"] == 1.0
    corpus = Path(next(word for word in command if word.startswith("data.path="))[10:]) / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + json.dumps({"_id": "new", "text": "penguins cannot fly"}) + "\n")
    assert main([*index, "run.dir=second"]) == 0
    assert "docs@2 is challenger; embfit bundle promote docs makes it champion" in capsys.readouterr().out
    versions = BundleVersions(Path("bundles"), "docs")
    assert versions.pointers() == {"champion": 1, "challenger": 2}
    manifest = versions.manifest("challenger")
    assert (manifest.documents.encoded, manifest.documents.reused, manifest.based_on) == (1, 36, 1)
    assert manifest.model.dims == [8, 16]
    assert embfit.load("bundles/docs@2").search("penguins cannot fly", 1)[0].id == "new"


def test_a_bundle_needs_a_name(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", *command]) == 2
    assert "bundle.name: is not set; name the bundle: bundle.name=docs" in capsys.readouterr().err
    assert main(["index", *command, "bundle.name=a/b"]) == 2
    assert "bundle.name=a/b: a bundle's name has letters, digits" in capsys.readouterr().err


def test_late_interaction_ranks_candidates_of_bm25(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = next(word for word in command if word.startswith("model.path="))
    late = [word for word in command if not word.startswith("model")]
    index = ["index", *late, "model=colbert", path, "model.dim=16", "bundle.name=docs", "index=tokens"]
    index += ["index.candidates=bm25", "index.shortlist=10", "bundle.gates.recall=null"]
    assert main([*index, "bundle.words=false", "run.dir=none"]) == 2
    assert "set bundle.words=true, or index.candidates=centroids" in capsys.readouterr().err
    assert main([*index, "run.dir=one"]) == 0
    assert "docs@1 is champion" in capsys.readouterr().out
    report = json.loads(Path("one/report.json").read_text())
    assert 0 < report["bundle"]["recall"] <= 1
    metrics = report["systems"]["bundle"]["metrics"]
    words = {hit.id for hit in embfit.load("bundles/docs").search("the heart pumps", 10, mode="words")}
    assert {hit.id for hit in embfit.load("bundles/docs").search("the heart pumps", 10)} == words
    assert 0 < metrics["recall@100"] <= 1


def test_an_index_that_does_not_suit_the_model_is_refused_before_data_are_read(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", *command, "bundle.name=docs", "index=funnel", "index.dims=64", "run.dir=one"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the documents cannot be indexed: index.dims=64 exceeds the vectors' 32 dimensions; lower it" in said
    assert "load data" not in said
    assert not Path("bundles").exists()


@pytest.mark.parametrize(
    ("loss", "single", "dims"),
    [
        ("{dims: null}", True, [64, 128, 192]),
        ("{dims: null}", False, [32, 64, 96, 128, 192]),
        ("{dims: [32, 16]}", True, [16, 32]),
        ("{temperature: 0.1}", True, []),
    ],
)
def test_the_dimensions_that_a_run_trained(tmp_path: Path, loss: str, single: bool, dims: list[int]) -> None:
    (tmp_path / "tiny").mkdir()
    model = finished(tmp_path / "runs" / "run", tmp_path / "tiny", "")
    config = model.parent / "config.yaml"
    config.write_text(f"{config.read_text()}loss: {loss}\n")
    assert trained_dims(model, 192, single) == dims
    assert trained_dims(tmp_path / "tiny", 192) == []
