"""Fixtures of the tasks: a collection of a few dozen texts on disk, and the overrides that name it and a tiny model."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import PreTrainedTokenizerFast

from embfit.app import main
from embfit.model import save_encoder
from tests.conftest import TEXTS, new_encoder

SPLITS = {"train": range(24), "dev": range(24, 30), "test": range(30, 36)}


ALL_TEXTS = [f"{text} {ending}" for ending in ("often", "rarely", "in children") for text in TEXTS]


@pytest.fixture
def texts() -> list[str]:
    """Thirty-six documents: each sentence with one of three endings."""
    return ALL_TEXTS


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _plots_are_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each run the SVG of its plots, half of its time: the run that tests share has it, and those of reports."""
    monkeypatch.setattr("embfit.report.drawing._svg", lambda figure, title: "<svg></svg>")


def write_command(parent: Path, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Write a tiny model, a collection in the BEIR layout and a folder `work`; return overrides that name the two."""
    save_encoder(new_encoder(tokenizer), parent / "tiny")
    folder = parent / "collection"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(ALL_TEXTS)]
    queries = [
        {"_id": f"q{row}", "text": " ".join([*text.split()[2:6], text.split()[-1]])}
        for row, text in enumerate(ALL_TEXTS)
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, rows in SPLITS.items():
        lines = "".join(f"q{row}\td{row}\t1\n" for row in rows)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    (parent / "work").mkdir()
    return [
        "model=custom",
        f"model.path={parent / 'tiny'}",
        "model.precision=fp32",
        "data=beir",
        f"data.path={folder}",
        "training.batch_size=8",
        "training.lr=1e-3",
        "training.epochs=2",
        "trainer=cpu",
        "evaluator.resamples=200",
    ]


@pytest.fixture
def command(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides that name a tiny model and a collection; the working directory is empty."""
    overrides = write_command(tmp_path, tokenizer)
    monkeypatch.chdir(tmp_path / "work")
    return overrides


class FineTuning(NamedTuple):
    """A finished fine-tuning by the overrides of `command` and nothing else.

    Args:
        command: the overrides, which name a model and a collection of its own.
        work: its working directory, with the run in `run` and the store in `outputs`.
        output: what it printed.
    """

    command: list[str]
    work: Path
    output: str


@pytest.fixture(scope="session")
def _fine_tuning(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    """One default fine-tuning for all tests that only read what it leaves."""
    parent = tmp_path_factory.mktemp("fine-tuning")
    overrides = write_command(parent, tokenizer)
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.chdir(parent / "work")
        assert main([*overrides, "run.dir=run"]) == 0
    return FineTuning(overrides, parent / "work", output.getvalue())


@pytest.fixture
def fine_tuning(_fine_tuning: FineTuning, command: list[str]) -> FineTuning:
    """A default fine-tuning, whose run and store are copied into the working directory."""
    shutil.copytree(_fine_tuning.work, Path(), dirs_exist_ok=True)
    return _fine_tuning
