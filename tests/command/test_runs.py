import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from embfit.app import main
from embfit.command.run_difference import differences
from embfit.compose.value_origins import Origins
from embfit.errors import UserError
from embfit.run.folder import RunFolder
from embfit.run.record import find_runs, headline_of, read_record
from embfit.store import Store

QUERIES = [f"q{number}" for number in range(20)]


def make(folder: Path, lr: float, values: list[float], **report) -> Path:
    """Make a finished run with a report whose nDCG@10 is given by query."""
    config = {
        "task": {"_target_": "embfit.task.finetune.finetune"},
        "training": {"lr": lr},
        "run": {"dir": str(folder)},
        "logger": {"csv": {"save_dir": str(folder)}},
    }
    origins = Origins()
    origins.put("training.lr", "conf/training/in-batch.yaml:7", 5e-5)
    origins.put("training.lr", "command line", lr)
    with RunFolder(folder, config, origins, [f"training.lr={lr}"]):
        pass
    per_query = dict(zip(QUERIES, values, strict=True))
    tuned = {"metrics": {"ndcg@10": sum(values) / len(values)}, "per_query": {"ndcg@10": per_query}}
    base = {"metrics": {"ndcg@10": 0.25}, "per_query": {"ndcg@10": dict.fromkeys(QUERIES, 0.25)}}
    written = {"systems": {"base": base, "tuned": tuned, "bm25": base}, "data": {"name": "small"}} | report
    (folder / "report.json").write_text(json.dumps(written))
    return folder


def test_a_run_reads_back(tmp_path):
    run = read_record(make(tmp_path / "a", 1e-5, [0.5] * 20))
    assert run.task == "finetune"
    assert run.status["state"] == "done"
    assert run.headline == ("ndcg@10", {"base": 0.25, "tuned": 0.5})
    assert run.measured == ("ndcg@10", {"base": 0.25, "tuned": 0.5, "bm25": 0.25})
    assert run.provenance["values"]["training.lr"]["source"] == "command line"


def test_runs_are_found_with_the_latest_last(tmp_path):
    for name, started in (("late", "2026-03-02"), ("early", "2026-03-01")):
        folder = make(tmp_path / "deep" / name, 1e-5, [0.5] * 20)
        status = json.loads((folder / "status.json").read_text()) | {"started": started}
        (folder / "status.json").write_text(json.dumps(status))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "status.json").write_text("{")
    assert [run.dir.name for run in find_runs(tmp_path)] == ["early", "late"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("versions.json", None, "it has no versions.json"), ("config.yaml", "a: [", "while parsing")],
)
def test_what_is_not_a_run(tmp_path, name, text, told):
    folder = make(tmp_path / "a", 1e-5, [0.5] * 20)
    (folder / name).unlink()
    if text:
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=f"a is not the folder of a run: {told}"):
        read_record(folder)


def test_what_differs(tmp_path):
    a = make(tmp_path / "a", 1e-5, [0.5] * 20)
    b = make(tmp_path / "b", 2e-5, [0.75] * 20, data={"name": "small", "corpus_sha256": "1f"})
    versions = json.loads((b / "versions.json").read_text())
    versions["packages"]["torch"] = "9.0"
    (b / "versions.json").write_text(json.dumps(versions))
    configuration, data, installed, results = differences(read_record(a), read_record(b))
    assert configuration.splitlines() == ["configuration:", "  training.lr  1e-05  → 2e-05  command line"]
    assert data.splitlines() == ["data:", '  corpus_sha256  -  → "1f"']
    assert installed.splitlines()[1].split()[0] == "packages.torch"
    assert installed.splitlines()[1].endswith('→ "9.0"')
    [line] = results.splitlines()[1:]
    assert " ".join(line.split()) == (
        "tuned ndcg@10 0.5000 → 0.7500 +0.2500 95 % interval +0.2500 to +0.2500, p = 0.0001"
    )


def test_a_folder_beside_the_run_is_a_setting(tmp_path):
    runs = []
    for name, data in (("a", "a-data"), ("b", "b-data")):
        run = read_record(make(tmp_path / name, 1e-5, [0.5] * 20))
        own = {"path": str(tmp_path / data), "inside": str(tmp_path / name / "x")}
        runs.append(replace(run, config={**run.config, "run": {"dir": str(tmp_path / name)}, "data": own}))
    [heading, line] = next(differences(*runs)).splitlines()
    assert heading == "configuration:"
    assert line.split()[0] == "data.path"  # its name begins like the run's, and it is not in the run's folder


def test_results_on_other_queries_are_not_tested(tmp_path):
    a, b = (read_record(make(tmp_path / name, 1e-5, [value] * 20)) for name, value in (("a", 0.5), ("b", 0.75)))
    others = b.report["systems"]["tuned"]["per_query"]["ndcg@10"]
    others["another"] = others.pop("q0")
    *same, results = differences(a, b)
    assert same == ["configuration: no difference", "data: no difference", "versions: no difference"]
    assert results.endswith("on other queries")


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(Path("outputs/a"), 1e-5, [0.5] * 20)
    make(Path("outputs/b"), 2e-5, [0.75] * 20)
    assert main(["runs", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[1], row[3:]) for row in rows] == [
        (
            "outputs/a",
            "finetune",
            ["ndcg@10", "base", "0.2500,", "tuned", "0.5000,", "bm25", "0.2500", "training.lr=1e-05"],
        ),
        (
            "outputs/b",
            "finetune",
            ["ndcg@10", "base", "0.2500,", "tuned", "0.7500,", "bm25", "0.2500", "training.lr=2e-05"],
        ),
    ]
    assert main(["runs", "explain", "outputs/a", "trainingg"]) == 2
    assert capsys.readouterr().err == ("embfit: error: trainingg: there is no such key; did you mean 'training'?\n")
    assert main(["runs", "explain", "outputs/a", "training"]) == 0
    told = "training.lr 1e-05 command line, over 5e-05 in conf/training/in-batch.yaml:7"
    assert " ".join(capsys.readouterr().out.split()) == told
    assert main(["runs", "diff", "outputs/a", "outputs/b"]) == 0
    assert capsys.readouterr().out.startswith("configuration:\n  training.lr  1e-05  → 2e-05  command line\n\ndata: no")
    assert main(["runs", "diff", "outputs/a", "nowhere"]) == 1
    assert "nowhere is not the folder of a run: it has no status.json" in capsys.readouterr().err
    assert main(["runs", "list", "nowhere"]) == 1
    assert main(["runs"]) == 2


def test_a_failed_run_says_where(tmp_path, capsys):
    config = {"task": {"_target_": "embfit.task.mine.mine"}, "run": {"dir": "x"}}
    with pytest.raises(UserError), RunFolder(tmp_path / "x", config, {}) as run, run.stage("load data"):
        raise UserError("a.tsv:3: one column")
    assert main(["runs", "list", str(tmp_path)]) == 0
    assert "failed at load data: a.tsv:3: one column" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "x" / "config.yaml").read_text()) == config


def test_a_failed_run_says_so_beside_its_numbers_and_in_a_short_row(tmp_path, capsys):
    folder = make(tmp_path / "a", 1e-5, [0.5] * 20)
    failed = {"state": "failed", "stage": "report", "error": "a long story, " * 30}
    (folder / "status.json").write_text(json.dumps(json.loads((folder / "status.json").read_text()) | failed))
    assert main(["runs", "list", str(tmp_path)]) == 0
    [row] = capsys.readouterr().out.splitlines()
    assert "ndcg@10 base 0.2500, tuned 0.5000, bm25 0.2500; failed at report: a long story, a long story," in row
    assert len(row) < len(str(folder)) + 200


@pytest.mark.parametrize(
    ("name", "text"),
    [("status.json", "{}"), ("status.json", "[1]"), ("report.json", "[1]")],
)
def test_what_another_program_left_is_passed_over(tmp_path, capsys, name, text):
    make(tmp_path / "ours", 1e-5, [0.5] * 20)
    theirs = make(tmp_path / "theirs", 1e-5, [0.5] * 20)
    (theirs / name).write_text(text)
    assert [found.dir.name for found in find_runs(tmp_path)] == ["ours"]
    assert main(["runs", "explain", str(theirs)]) == 1
    assert "theirs is not the folder of a run: its files are another program's" in capsys.readouterr().err


def test_a_list_reads_the_headline_and_neither_the_report_nor_stores(tmp_path, capsys):
    run = make(tmp_path / "a", 1e-5, [0.5] * 20)
    (run / "headline.json").write_text(json.dumps(headline_of(json.loads((run / "report.json").read_text()))))
    (run / "report.json").write_text("{ not read")
    store = Store(tmp_path / "store")
    store.entry("kept", {"a": 1}, lambda folder: None, version=1)
    make(store.dir / "kept" / "within", 1e-5, [0.5] * 20)
    assert main(["runs", "list", str(tmp_path)]) == 0
    [row] = capsys.readouterr().out.splitlines()
    assert "ndcg@10 base 0.2500, tuned 0.5000, bm25 0.2500" in row


def test_a_configuration_of_another_program_is_no_runs(tmp_path):
    theirs = make(tmp_path / "theirs", 1e-5, [0.5] * 20)
    (theirs / "config.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="theirs is not the folder of a run: its files are another program's"):
        read_record(theirs)
