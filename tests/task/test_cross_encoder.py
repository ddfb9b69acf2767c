"""Cross-encoders from the command line, on two-layer models and a collection of a few dozen texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embfit.app import main
from embfit.model import CrossEncoder, save_ranker
from tests.task.test_tasks import report


@pytest.fixture
def ranker(tiny_ranker: CrossEncoder, tmp_path: Path) -> str:
    save_ranker(tiny_ranker, tmp_path / "ranker")
    return str(tmp_path / "ranker")


@pytest.mark.parametrize("choices", [["experiment=distill"], ["loss=distill", "miner=taught"]])
def test_distillation_from_one_command(command: list[str], ranker: str, choices: list[str]) -> None:
    assert main([*command, *choices, f"miner.model={ranker}", "training.epochs=1", "run.dir=run"]) == 0
    found = report("run")
    assert found["mining"]["teacher_scores"] > 24  # each query's positive, and negatives
    assert found["training"]["steps"] == 3
    assert {"base", "tuned"} <= found["systems"].keys()


def test_mined_scores_are_written_for_people(command: list[str], ranker: str) -> None:
    assert main([*command, "task=mine", "miner=cross-encoder", f"miner.model={ranker}", "run.dir=run"]) == 0
    lines = [json.loads(line) for line in Path("run/negatives.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    found = [negative for line in lines for negative in line["negatives"]]
    assert found
    assert {negative["source"] for negative in found} == {"cross-encoder"}
    for line in lines:
        lowest = min(positive["score"] for positive in line["positives"])
        assert all(negative["score"] <= lowest for negative in line["negatives"])


def test_an_encoder_cannot_teach(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    encoder = next(word.partition("=")[2] for word in command if word.startswith("model.path="))
    assert main([*command, "task=mine", "miner=taught", f"miner.model={encoder}", "run.dir=run"]) == 1
    assert "without a classification head" in capsys.readouterr().err


def test_the_cross_encoder_must_be_named(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "task=mine", "miner=cross-encoder", "run.dir=run"]) == 2
    assert "miner.model: is not set" in capsys.readouterr().err
