"""Which model `task=search` takes for the tuned one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from embfit.model import CrossEncoder, Encoder, Pretrained, save_cross_encoder, save_encoder
from embfit.model.back_ends.static_int8 import GRAPH, RECORD
from embfit.model.latest_run import newest_encoder
from embfit.records import Collection
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.search import _side_by_side, search
from tests.conftest import make_collection


def finished(run: Path, model: Path, corpus: str) -> Path:
    """Make what `task=search` reads of a fine-tuning; the next one is newer."""
    shutil.copytree(model, run / "model")
    os.utime(run / "model", (1e9 + len(list(run.parent.iterdir())),) * 2)
    for name, said in (("status", {"state": "done"}), ("report", {"data": {"corpus_sha256": corpus}})):
        (run / f"{name}.json").write_text(json.dumps(said))
    (run / "config.yaml").write_text("task: {_target_: embfit.task.finetune}\n")
    for name in ("provenance.json", "versions.json"):
        (run / name).write_text("{}")
    return run / "model"


def test_search_takes_thenewest_encoder_of_the_same_documents(
    tiny_encoder: Encoder, tiny_ranker: CrossEncoder, small_collection: Collection, store: Store, tmp_path: Path
) -> None:
    save_encoder(tiny_encoder, tmp_path / "encoder")
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    runs, here = tmp_path / "runs", small_collection.corpus_digest
    assert newest_encoder(runs, small_collection) is None
    finished(runs / "older", tmp_path / "encoder", here)
    wanted = finished(runs / "newer", tmp_path / "encoder", here)
    finished(runs / "ranker", tmp_path / "ranker", here)
    finished(runs / "other", tmp_path / "encoder", "another corpus")
    finished(store.dir / "kept", tmp_path / "encoder", here)
    quantized = finished(runs / "quantized", tmp_path / "encoder", here) / "onnx"
    quantized.mkdir()
    for name in (GRAPH, RECORD):
        (quantized / name).touch()
    failed = finished(runs / "failed", tmp_path / "encoder", here).parent
    (failed / "status.json").write_text(json.dumps({"state": "failed"}))
    store.entry("kept", {"a": 1}, lambda folder: None, version=1)
    store.dir.rename(runs / "store")
    assert newest_encoder(runs, small_collection) == wanted


def test_the_tuned_model_is_searched_as_what_its_own_folder_says(
    make_encoder, small_collection: Collection, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(make_encoder(), tmp_path / "base")
    save_encoder(make_encoder(pooling="cls", query_prompt="ask: ", max_length=16, normalize=False), tmp_path / "tuned")
    settings = {}

    def top(encoder, collection, query, k, store):
        settings[encoder.source] = encoder.settings
        return []

    monkeypatch.setattr("embfit.task.search._top", top)
    configured = Pretrained(
        str(tmp_path / "base"), pooling="mean", query_prompt="query: ", document_prompt="text: ", max_length=8
    )
    config = {"task": {"_target_": "embfit.task.search.search"}, "run": {"dir": str(tmp_path / "run")}}
    with RunFolder(tmp_path / "run", config, {}) as run:
        source = SimpleNamespace(load=lambda store: small_collection)
        asked = {"query": "fever", "tuned": str(tmp_path / "tuned"), "runs": str(tmp_path), "documents": 3}
        search(source, configured, store, run, Devices(("cpu",)), **asked)
    base, tuned = settings[str(tmp_path / "base")], settings[str(tmp_path / "tuned")]
    assert (base.pooling, base.query_prompt, base.document_prompt, base.max_length) == ("mean", "query: ", "text: ", 8)
    assert (tuned.pooling, tuned.query_prompt, tuned.document_prompt) == ("cls", "ask: ", "")
    assert (tuned.max_length, tuned.normalize) == (16, False)


def test_brackets_in_texts_are_not_markup() -> None:
    collection = make_collection({"d[0]": "say [/INST] or [options] :cat:"}, {"q": "x"}, {})
    console = Console(width=100)
    with console.capture() as captured:
        console.print(_side_by_side("use [bold] [/b]", {"base": [(0, 0.5)]}, collection))
    lines = captured.get().splitlines()
    assert lines[0].strip() == "use [bold] [/b]"
    assert [line.strip("│ ┃").split("│")[-1].strip() for line in lines[4:6]] == [
        "0.500  d[0]",
        "say [/INST] or [options] :cat:",
    ]
