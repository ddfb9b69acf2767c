"""`task=quantize`, as it is typed: a model in int8 that passes its gate, and one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from embfit.app import main
from embfit.model import Pretrained
from embfit.model.back_ends import choice
from embfit.task import quantize as task
from tests.task.conftest import ALL_TEXTS

pytestmark = pytest.mark.skipif(not choice.installed("onnx"), reason="onnxruntime is not installed")

QUIET = ["evaluator.bm25=false", "task.texts=12"]


def handbook(command: list[str], parent: Path, count: int) -> list[str]:
    """Write documents without queries; return the overrides with them in the place of the collection."""
    folder = parent / "handbook"
    folder.mkdir()
    for row, text in enumerate(ALL_TEXTS[:count]):
        (folder / f"{row}.md").write_text(f"# Part {row}\n\n{text}.\n")
    return [*(word for word in command if not word.startswith("data")), "data=documents", f"data.path={folder}"]


def test_a_model_that_is_as_good(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *command, *QUIET, "task.tolerance=0.5", "run.dir=int8"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    report = json.loads(Path("int8/report.json").read_text())
    assert list(report["systems"]) == ["fp32", "int8"]
    facts = report["int8"]
    assert (facts["passed"], facts["texts"], facts["documents"], facts["queries"]) == (True, 24, 24, 6)
    assert facts["first"] == 2
    assert 0.99 < facts["lowest_cosine"] <= facts["cosine"] < 1
    [whole] = [one for one in report["comparisons"] if one["metric"] == "ndcg@10" and one["subset"] == "all"]
    assert f"passed ndcg@10 {whole['difference']:+.4f} against fp32" in told
    used = ["model=custom", "model.path=int8/model", "model.backend=onnx", "model.precision=int8"]
    assert f"use it: {' '.join(used)}" in told
    others = [word for word in command if not word.startswith("model")]
    assert main(["index", *others, *used, "bundle.name=docs", "run.dir=index"]) == 0
    indexed = json.loads(Path("index/report.json").read_text())
    assert indexed["systems"]["bundle"]["metrics"] == report["systems"]["int8"]["metrics"]


def test_weights_are_kept_in_fp32(command: list[str], tmp_path: Path) -> None:
    few = [*handbook(command, tmp_path, 20), *QUIET, "task.overlap=0"]
    not_for_training = ["model.dtype=bfloat16", "evaluator.split=dev"]
    assert main(["quantize", *few, *not_for_training, "run.dir=int8"]) == 0
    encoder = Pretrained("int8/model", backend="onnx", precision="int8").load("cpu")
    assert (encoder.computes_in, encoder.backbone.dtype) == ("int8", torch.float32)


def test_a_model_that_is_not_as_good(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [*handbook(command, tmp_path, 24), *QUIET, "task.overlap=0.5"]
    compared = task._compare

    def worse(plain, quantized):  # the documents' vectors in another order
        documents, queries = quantized
        return compared(plain, (documents.take(list(range(len(documents)))[::-1]), queries))

    monkeypatch.setattr(task, "_compare", worse)
    assert main(["quantize", *alone, "run.dir=refused"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    found = json.loads(Path("refused/report.json").read_text())["int8"]
    assert (found["passed"], found["documents"]) == (False, 12)
    assert (found["first"], found["overlap"] < 0.5) == (1, True)  # of ten of twelve, eight are always the same
    assert f"is not as good in int8: {found['overlap']:.4f} of the first 1 of 12 documents are fp32's, limit" in error
    assert not Path("refused/model").exists()


def test_too_few_documents(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *handbook(command, tmp_path, 19), "run.dir=few"]) == 2
    assert "has 19 documents; int8 is calibrated on some" in " ".join(capsys.readouterr().err.split())
