import json

from embfit.sweep.job import Job, Result
from embfit.sweep.summary import Summary

RESULTS = [
    Result(Job(0, {"lr": "1"}), "done", objective=0.5, headline={"tuned": 0.4}, minutes=1.5),
    Result(Job(1, {"lr": "<2>"}), "failed", error="out of memory"),
    Result(Job(2, {"lr": "3"}), "done", objective=0.75, headline={"tuned": 0.6}, minutes=2.0),
    Result(Job(3, {"lr": "4"}), "waiting"),
]


def summary(**changes) -> Summary:
    return Summary(**{"command": "c", "objective": "dev.x", "direction": "maximize", "results": RESULTS} | changes)


def test_the_best_first_and_what_is_not_done_last():
    assert [" ".join(row).split() for row in summary().table()] == [
        ["job", "lr", "dev.x", "report", "tuned", "minutes"],
        ["2", "3", "0.7500", "0.6000", "2.0"],
        ["0", "1", "0.5000", "0.4000", "1.5"],
        ["1", "<2>", "failed:", "out", "of", "memory"],
        ["3", "4", "waiting"],
    ]
    assert summary().sentence == "2 of 4 jobs done; best dev.x 0.7500 in job 2 (lr=3)"
    assert [result.job.number for result in summary().unfinished] == [1, 3]
    least = summary(direction="minimize").best
    assert least is not None
    assert least.job.number == 0


def test_no_objective_is_said():
    found = summary(results=[Result(Job(0, {}), "done"), RESULTS[1]])
    assert found.best is None
    assert found.sentence == "1 of 2 jobs done; no report has dev.x, so none is the best (set sweep.objective)"
    assert summary(results=RESULTS[1:2]).sentence == "0 of 1 jobs done"


def test_files(tmp_path):
    summary().write(tmp_path)
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["best"] == 2
    assert record["jobs"][1] == {
        "number": 1,
        "point": {"lr": "<2>"},
        "state": "failed",
        "error": "out of memory",
        "objective": None,
        "headline": {},
        "minutes": None,
    }
    page = (tmp_path / "summary.html").read_text()
    assert '<tr class="best"><td>2</td><td>3</td><td>0.7500</td>' in page
    assert "<td>&lt;2&gt;</td>" in page
