import json
import re
from dataclasses import replace

import pytest

from embfit.sweep.job import Result, SweepJob
from embfit.sweep.objective import Objective
from embfit.sweep.page import write_page
from embfit.sweep.summary import Summary

RESULTS = [
    Result(SweepJob(0, {"lr": "1"}), "done", values=(0.5,), headline={"tuned": 0.4}, minutes=1.5),
    Result(SweepJob(1, {"lr": "<2>"}), "failed", error="out of memory"),
    Result(SweepJob(2, {"lr": "3"}), "done", values=(0.75,), headline={"tuned": 0.6}, minutes=2.0),
    Result(SweepJob(3, {"lr": "4"}), "waiting"),
]


def summary(**changes) -> Summary:
    return Summary(**{"command": "c", "objectives": [Objective("dev.x", "maximize")], "results": RESULTS} | changes)


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
    least = summary(objectives=[Objective("dev.x", "minimize")]).best
    assert least is not None
    assert least.results[0].job.number == 0


def test_no_objective_is_said():
    found = summary(results=[Result(SweepJob(0, {}), "done", values=(None,)), RESULTS[1]])
    assert found.best is None
    assert found.sentence == "1 of 2 jobs done; no report has dev.x, so there is no best job (set sweep.objective)"
    assert summary(results=RESULTS[1:2]).sentence == "0 of 1 jobs done"


def test_files(tmp_path):
    summary().write(tmp_path)
    write_page(summary(), tmp_path)
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["best"] == 2
    assert record["jobs"][1] == {
        "number": 1,
        "point": {"lr": "<2>"},
        "state": "failed",
        "error": "out of memory",
        "values": {"dev.x": None},
        "headline": {},
        "minutes": None,
    }
    page = (tmp_path / "summary.html").read_text()
    assert '<tr class="best"><td>2</td><td>3</td><td>0.7500</td>' in page
    assert "<td>&lt;2&gt;</td>" in page


def done(number: int, values: tuple[float, ...], **point: str) -> Result:
    return Result(SweepJob(number, point), "done", values=values)


def test_seeds_are_averaged_and_none_wins_by_a_lucky_one():
    results = [
        done(0, (0.9,), lr="1", seed="0"),
        done(1, (0.1,), lr="1", seed="1"),
        done(2, (0.6,), lr="2", seed="0"),
        done(3, (0.6,), lr="2", seed="1"),
        done(4, (0.95,), lr="3", seed="0"),  # its other seed is not done
        Result(SweepJob(5, {"lr": "3", "seed": "1"}), "pruned", error="worse"),
    ]
    found = summary(results=results)
    assert found.best is not None
    assert (found.best.point, found.best.values) == ({"lr": "2"}, (0.6,))
    assert found.sentence == (
        "5 of 6 jobs done, 1 pruned; best dev.x 0.6000 (mean of 2 seeds) in jobs 2, 3 (lr=2)\n"
        "not compared, because other points have more seeds: lr=3 (job 4)"
    )
    assert found.unfinished == []
    assert found.record()["best_jobs"] == [2, 3]


def test_a_point_that_is_repeated_is_no_better_for_it():
    results = [
        done(0, (0.5,), lr="1"),
        done(1, (0.5,), lr="1"),
        done(2, (0.9,), lr="2"),
    ]
    found = summary(results=results)
    assert found.sentence == "3 of 3 jobs done; best dev.x 0.9000 in job 2 (lr=2)"
    assert [len(one.results) for one in found.candidates] == [1, 1]
    results = [
        done(number, (value,), lr=lr, seed=seed)
        for number, (value, lr, seed) in enumerate([(0.9, "1", "0"), (0.9, "1", "0"), (0.3, "2", "0"), (0.4, "2", "1")])
    ]
    best = summary(results=results).best
    assert best is not None
    assert (best.point, best.values) == ({"lr": "2"}, (pytest.approx(0.35),))  # two seeds; the other has one, twice


def test_a_front_of_two_objectives():
    results = [
        done(0, (0.8, 9.0), size="large"),
        done(1, (0.7, 2.0), size="small"),
        done(2, (0.6, 3.0), size="odd"),  # the small one is better and quicker
        done(3, (0.75, 2.0), size="fine"),
    ]
    found = summary(objectives=[Objective("dev.x", "maximize"), Objective("minutes", "minimize")], results=results)
    assert [one.point["size"] for one in found.front] == ["large", "fine"]
    assert [row[-1] for row in found.table()] == ["", "front", "front", "", ""]
    assert found.record()["front"] == [[0], [3]]
    assert found.sentence.splitlines() == [
        "4 of 4 jobs done; best dev.x 0.8000, minutes 9.0000 in job 0 (size=large)",
        "the front (no other point is better in one objective without being worse in another): "
        "job 0: dev.x 0.8000, minutes 9.0000; job 3: dev.x 0.7500, minutes 2.0000",
        "the best is the point of the front with the best dev.x",
    ]


def test_values_stand_where_their_size_puts_them():
    from embfit.sweep.plots import _scale

    assert _scale(["1", "2", "5"]) == {"1": 0, "2": 0.25, "5": 1}
    assert _scale(["1e-5", "1e-4", "1e-3"]) == pytest.approx({"1e-5": 0, "1e-4": 0.5, "1e-3": 1})
    assert _scale(["bm25", "dense", "bm25"]) == {"bm25": 0, "dense": 1}
    assert _scale(["7", "7"]) == {"7": 0}


def test_plots_are_in_the_page(tmp_path):
    pytest.importorskip("optuna")
    values = [(0.5 + 0.1 * (number % 3), number / 2) for number in range(6)]
    results = [
        done(number, values[number], miner=("bm25", "dense")[number % 2], lr=f"{number + 1}e-5") for number in range(6)
    ]
    one = [replace(result, values=result.values[:1]) for result in results]
    page = write_page(summary(results=one), tmp_path).read_text()
    assert page.count("<svg") == 2
    assert "Which values lead to which results" in page
    assert "What matters most" in page
    assert "var(--gain)" in page  # they follow the page into the dark
    assert not re.search(r"#[0-9a-f]{6}", "".join(re.findall(r"<svg.*?</svg>", page, flags=re.S)))
    assert "http:" not in page
    assert "https:" not in page
    two = summary(objectives=[Objective("dev.x", "maximize"), Objective("minutes", "minimize")], results=results)
    assert write_page(two, tmp_path).read_text().count("<svg") == 3
    same = [done(number, (0.5,), lr=str(number)) for number in range(4)]
    assert write_page(summary(results=same), tmp_path).read_text().count("<svg") >= 1
    assert write_page(summary(results=one[:2]), tmp_path).read_text().count("<svg") == 0
