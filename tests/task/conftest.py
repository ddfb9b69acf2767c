"""Fixtures of the tasks: a collection of a few dozen texts on disk, and the overrides that name it and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embfit.model import Encoder, save_encoder
from tests.conftest import TEXTS

SPLITS = {"train": range(24), "dev": range(24, 30), "test": range(30, 36)}


@pytest.fixture
def texts() -> list[str]:
    """Thirty-six documents: each sentence with one of three endings."""
    return [f"{text} {ending}" for ending in ("often", "rarely", "in children") for text in TEXTS]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def command(tiny_encoder: Encoder, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides that name a tiny model and a collection in the BEIR layout; the working directory is empty."""
    save_encoder(tiny_encoder, tmp_path / "tiny")
    folder = tmp_path / "collection"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(texts)]
    queries = [
        {"_id": f"q{row}", "text": " ".join([*text.split()[2:6], text.split()[-1]])} for row, text in enumerate(texts)
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, rows in SPLITS.items():
        lines = "".join(f"q{row}\td{row}\t1\n" for row in rows)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return [
        "model=custom",
        f"model.path={tmp_path / 'tiny'}",
        "model.precision=fp32",
        "data=beir",
        f"data.path={folder}",
        "training.batch_size=8",
        "training.lr=1e-3",
        "training.epochs=2",
        "trainer=cpu",
        "evaluator.resamples=200",
    ]
