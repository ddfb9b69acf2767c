"""`task=bridge`: a new model on the index of a version, published as the next one and measured beside both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import embfit
from embfit.app import main
from embfit.bundle import BundleVersions
from embfit.model import BiEncoder, save_encoder
from embfit.model.query_adapter import as_projection
from tests.conftest import new_encoder, new_late_encoder
from tests.task.conftest import ALL_TEXTS, write_command

BUNDLE = ["bundle.name=docs", "evaluator.bm25=false"]


def turned(tokenizer: PreTrainedTokenizerFast, width: int = 32) -> BiEncoder:
    """Return the tiny model behind a random map: another space, of which a linear map leads back."""
    encoder = new_encoder(tokenizer)
    matrix = torch.randn(32, width, generator=torch.Generator().manual_seed(1))
    return BiEncoder(encoder.backbone, tokenizer, encoder.settings, [as_projection(matrix)], "turned").eval()


@pytest.fixture(scope="module")
def _first(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    home = tmp_path_factory.mktemp("first")
    command = [*write_command(home, tokenizer), *BUNDLE]
    save_encoder(turned(tokenizer, 48), home / "wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.chdir(home / "work")
        assert main(["index", *command, "run.dir=one"]) == 0
    return command, home


@pytest.fixture
def command(_first: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides of a bundle with one version, in a working directory of the test's own."""
    words, home = _first
    shutil.copytree(home, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    return [word.replace(str(home), str(tmp_path / "home")) for word in words]


def test_a_new_model_on_the_old_index(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    wide = ["model.path=../wide", "task.own_index=true", "run.dir=two"]
    assert main(["bridge", *command, *wide]) == 0
    versions = BundleVersions(Path("bundles"), "docs")
    first, second = versions.manifest(1), versions.manifest(2)
    assert versions.pointers() == {"champion": 1, "challenger": 2}
    assert (second.model.document, second.model.width) == (first.model.document, 32)
    assert second.model.query != first.model.query
    assert (second.documents.encoded, second.documents.reused, second.based_on) == (0, 36, 1)
    assert second.index.fingerprint == first.index.fingerprint
    told = " ".join(capsys.readouterr().out.split())
    assert "fitted on 24 queries and 36 documents: of texts left out, cosine 1.000 with the vectors of docs@1" in told
    assert "docs@2 is challenger; embfit bundle promote docs makes it champion" in told
    report = json.loads(Path("two/report.json").read_text())
    assert list(report["systems"]) == ["docs@1", "bridge", "own index"]
    assert {(found["a"], found["b"]) for found in report["comparisons"]} == {
        ("docs@1", "bridge"),
        ("own index", "bridge"),
    }
    facts = report["bridge"]
    assert (facts["width"], facts["queries"], facts["documents"], facts["index_of"]) == ([48, 32], 24, 36, "docs@1")
    assert second.bridge == facts
    over, own = (report["systems"][name]["metrics"]["ndcg@10"] for name in ("bridge", "own index"))
    assert f"the bridge keeps {over / own:.1%} of the ndcg@10 that the new model has on its own index" in told
    assert second.quality is not None
    assert second.quality.metrics["ndcg@10"] == pytest.approx(over)
    docs, before = embfit.load("bundles/docs@2"), embfit.load("bundles/docs@1")
    cosines = np.einsum("nd,nd->n", docs.encode(ALL_TEXTS, "query"), before.encode(ALL_TEXTS, "query"))
    assert cosines.mean() > 0.99
    assert docs.search(ALL_TEXTS[3], 1)[0].id == "d3"
    assert main(["bundle", "verify", "docs"]) == 0
    assert main(["index", *command, "model.path=../wide", "run.dir=three"]) == 0
    assert versions.manifest(3).documents.encoded == 36  # its own index, in whose space the bridged one's is not


def test_without_vectors_the_new_index_is_not_measured(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model.path=../wide", "task.documents=12", "task.promote=true", "bundle.gates.loss=1", "run.dir=two"]
    assert main(["bridge", *command, *words]) == 0
    told = " ".join("".join(capsys.readouterr()).split())
    assert "the new model's own index is not measured" in told
    assert "fitted on 24 queries and 12 documents" in told
    assert "the bridge is fitted on 36 texts, and the model has 48 dimensions; task.documents=144" in told
    assert "docs@2 is champion" in told
    assert list(json.loads(Path("two/report.json").read_text())["systems"]) == ["docs@1", "bridge"]


def test_the_same_model_is_the_identity(command: list[str]) -> None:
    assert main(["bridge", *command, "run.dir=two"]) == 0  # its vectors are in the store
    report = json.loads(Path("two/report.json").read_text())
    assert list(report["systems"]) == ["docs@1", "bridge", "own index"]
    assert report["systems"]["bridge"]["metrics"] == report["systems"]["docs@1"]["metrics"]
    assert report["bridge"]["agreement"] == report["bridge"]["agreement_unmapped"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["task.version=3"], "docs@3: there is no version 3"),
        (["bundle.name=dogs"], "has no bundle 'dogs'; did you mean 'docs'?"),
        (["data.path=../changed"], "has 37 documents, and docs@1 36, which are not all the same"),
        (["model=colbert", "model.path=../late"], "model: task=bridge"),
    ],
)
def test_what_is_refused(
    command: list[str],
    tokenizer: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    shutil.copytree("../collection", "../changed")
    with Path("../changed/corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "title": "", "text": "penguins cannot fly"}\n')
    save_encoder(new_late_encoder(tokenizer), Path("../late"))
    assert main(["bridge", *command, *given, "run.dir=two"]) in (1, 2)
    assert said in " ".join("".join(capsys.readouterr()).split())
    assert BundleVersions(Path("bundles"), "docs").numbers() == [1]


def test_documents_without_queries(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for row, text in enumerate(ALL_TEXTS[:12]):
        (folder / f"{row}.md").write_text(f"# Part {row}\n\n{text}.\n")
    words = [word for word in command if not word.startswith(("data", "bundle"))]
    alone = [*words, "data=documents", f"data.path={folder}", "bundle.name=handbook"]
    assert main(["index", *alone, "run.dir=alone"]) == 0
    assert main(["bridge", *alone, "model.path=../wide", "run.dir=two", "task.documents=0"]) == 2
    assert "so there is nothing to fit a bridge on; raise task.documents" in " ".join(capsys.readouterr().err.split())
    assert main(["bridge", *alone, "model.path=../wide", "run.dir=two"]) == 0
    assert "handbook has no judged queries (test), so nothing is measured" in capsys.readouterr().out
    assert BundleVersions(Path("bundles"), "handbook").manifest(2).quality is None
