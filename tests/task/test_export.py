"""`task=export` and `model.backend`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embfit.app import main
from embfit.model.back_ends.graph import installed

pytestmark = pytest.mark.skipif(not installed("onnx"), reason="onnxruntime is not installed")


def test_a_graph_is_left_in_the_run_folder(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *command, "run.dir=out"]) == 0
    assert "export  out/export" in capsys.readouterr().out.splitlines()
    manifest = json.loads(Path("out/export/export.json").read_text())
    assert (Path("out/export") / manifest["graph"]).is_file()
    assert main(["export", *command, "run.dir=out2", "model.backend=onnx"]) == 2
    assert "task=export converts on a CPU from PyTorch; set trainer=cpu and model.backend=torch" in (
        capsys.readouterr().err
    )


def test_a_back_end_finds_what_pytorch_finds(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for back_end in ("torch", "onnx"):
        evaluate = ["evaluate", *command, "task.systems=[base]", f"model.backend={back_end}"]
        assert main([*evaluate, f"run.dir={back_end}"]) == 0
        found[back_end] = json.loads(Path(f"{back_end}/report.json").read_text())["systems"]["base"]["metrics"]
    assert found["onnx"] == pytest.approx(found["torch"], abs=1e-6)
    assert main([*command, "model.backend=onnx"]) == 2
    assert "model.backend: onnx cannot train; set model.backend=torch" in capsys.readouterr().err


def test_a_bundle_is_written_as_parquet(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", *command, "bundle.name=docs", "run.dir=index"]) == 0
    parquet = ["export", "task.format=parquet", "run.dir=out"]
    assert main([*parquet, "task.version=bundles/docs@1"]) == 0
    assert "export  out/export" in capsys.readouterr().out.splitlines()
    assert pq.read_table("out/export/documents.parquet").num_rows == 36
    for version, said in (("", "task.version is not set"), ("=bundles/docs@7", "docs@7: there is no version 7")):
        words = [f"task.version{version}"] if version else []
        assert main([*parquet, *words, "run.dir=wrong"]) != 0
        assert said in capsys.readouterr().err
