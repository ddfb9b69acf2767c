"""The last lines of a task: where things are, and a command that can be copied into a shell."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from embfit.compose.command_line import parse
from embfit.evaluator.comparison import compare
from embfit.records import Evaluation, Ranking, Report
from embfit.run.folder import RunFolder
from embfit.task import reporting
from embfit.task.reporting import Usage, close
from tests.conftest import make_collection

COLLECTION = make_collection({"d": "text"}, {"q": "question"}, {})
REPORT = Report(task="mine", evaluations=[], comparisons=[], timings={})


@pytest.mark.parametrize("name", ["run", "my runs/a, b", "it's (1)", "a=b", "[x]", "9"])
def test_the_closing_command_can_be_copied(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data=beir", "data.path='my data, too'", "training.epochs=1"]
    with RunFolder(tmp_path / name, {"run": {"dir": str(tmp_path / name)}}, {}, overrides) as run:
        close(REPORT, run, COLLECTION, usage=Usage("task=search query='...'", "tuned", ("data", "store")))
    *places, last = capsys.readouterr().out.splitlines()
    assert places == [
        f"model    {tmp_path / name / 'model'}",
        f"report   {tmp_path / name / 'report.html'}",
        f"numbers  {tmp_path / name / 'report.json'}",
    ]
    assert last.startswith("use it   python -m embfit ")
    typed = shlex.split(last.removeprefix("use it   python -m embfit "))
    read = {key: value for word in parse(typed).overrides for key, value in [_read(word)]}
    assert read == {
        "task": "search",
        "query": "...",
        "tuned": str(tmp_path / name / "model"),
        "data": "beir",
        "data.path": "my data, too",
    }


@pytest.mark.parametrize(("gain", "label"), [(0.2, "use it"), (-0.2, "try it")])
def test_what_is_not_to_be_shipped_is_to_be_tried(
    gain: float, label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "write_report", lambda *_: None)
    base, tuned = (
        Evaluation(
            name, "test", {"mrr": value}, {"mrr": {f"q{n}": value for n in range(30)}}, {}, Ranking({}), {"queries": 30}
        )
        for name, value in (("base", 0.5), ("tuned", 0.5 + gain))
    )
    found = replace(
        REPORT, evaluations=[base, tuned], comparisons=compare(base, tuned, 100, 0), training={"kept_step": 1}
    )
    usage = Usage("task=search", "tuned")
    with RunFolder(tmp_path / "run", {"run": {"dir": "run"}}, {}) as run:
        close(found, run, COLLECTION, usage=usage)
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{label}   python -m embfit task=search")
        close(replace(found, training={"kept_step": 0}), run, COLLECTION, usage=usage)
        assert capsys.readouterr().out.splitlines()[-1].startswith("numbers")


def _read(word: str) -> tuple[str, object]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    found = OverridesParser.create().parse_override(word)
    return found.key_or_group, found.value()


def test_what_a_task_made_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path / "run", {"run": {"dir": "run"}}, {}) as run:
        close(REPORT, run, COLLECTION, made=[("negatives", "n.jsonl")], sentences=["- train"])
    assert capsys.readouterr().out.splitlines() == [
        "- train",
        "negatives  n.jsonl",
        f"report     {tmp_path / 'run' / 'report.html'}",
        f"numbers    {tmp_path / 'run' / 'report.json'}",
    ]
    assert (tmp_path / "run" / "report.json").is_file()
