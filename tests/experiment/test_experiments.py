"""Every experiment that embfit ships: composed and checked here; the slow test runs those that run offline."""

import json
import shlex
from pathlib import Path

import pytest

from embfit.app import main
from embfit.compose.command_line import parse
from embfit.compose.composition import check_composed, compose
from embfit.compose.loader import make_loader

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"), key=lambda file: file.stem)
SMALL = ["data.packages=[logging,email]", "training.steps=1", "training.batch_size=16", "evaluator.resamples=100"]
RUNS = {
    "first-look": SMALL,
    "quickstart": SMALL,
    "large-batch": SMALL,
    "mrl-funnel": SMALL,
    "labelled-pairs": ["data.path=pairs.jsonl", *SMALL[1:]],
    "code-search": ["data.path=src", *SMALL[1:]],
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Nothing of the user's own is composed."""
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_the_command_that_an_experiment_states_composes_and_passes(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    stated = next(line for line in lines if line.startswith("# python -m embfit "))
    overrides = parse(shlex.split(stated.removeprefix("# python -m embfit "))).overrides
    assert f"experiment={file.stem}" in overrides
    loader = make_loader()
    check_composed(loader, compose(loader, overrides), overrides)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_is_short(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert len(lines) <= 30


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUNS)
def test_an_experiment_runs_on_real_data(name, tmp_path, shared_data):
    (tmp_path / "src").symlink_to(Path(json.__file__).parents[1] / "email", target_is_directory=True)
    write_pairs(shared_data / "medquad-small", tmp_path / "pairs.jsonl")
    assert main([f"experiment={name}", *RUNS[name], "run.dir=run"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["training"]["steps"] == 1
    assert 0.0 < report["systems"]["tuned"]["metrics"]["ndcg@10"] <= 1.0
    assert bool(report["systems"]["tuned"]["funnel"]) == (name == "mrl-funnel")


def write_pairs(folder: Path, file: Path, most: int = 60) -> None:
    """Write some of a collection's training pairs as a table."""
    texts = {row["_id"]: row["text"] for row in map(json.loads, (folder / "corpus.jsonl").open(encoding="utf-8"))}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    judged = [line.split("\t") for line in (folder / "qrels" / "train.tsv").read_text().splitlines()[1 : most + 1]]
    rows = [{"query": queries[query], "positive": texts[document]} for query, document, _ in judged]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
