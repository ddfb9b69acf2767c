"""Sweeps from end to end on the small house: resumed, with failures, grid and search."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from embfit.app import main
from embfit.compose.composition import compose
from embfit.compose.loader import make_loader
from embfit.sweep.best_experiment import write_experiment
from tests.compose.conftest import house  # noqa: F401
from tests.test_app import script

SWEEP = Path("outputs/sweeps")
RATES = ["-m", "task=score", "model.rate=0.1,0.2,0.4", "loss.temperature=0.05,0.5"]


def summary() -> dict:
    return json.loads((SWEEP / "summary.json").read_text())


def started(job: int) -> str:
    return json.loads((SWEEP / str(job) / "status.json").read_text())["started"]


def test_a_grid_ends_in_a_summary_and_an_experiment(house, capsys, monkeypatch):  # noqa: F811
    assert main([*RATES, "experiment=deep"]) == 0
    out, err = capsys.readouterr()
    assert {line for line in err.splitlines() if not line.startswith("reusing")} == {
        f"sweep in {SWEEP}: 6 jobs",
        "scoring",
    }
    out = out.splitlines()
    assert out[0].split() == [
        "job",
        "model.rate",
        "loss.temperature",
        "dev.ndcg@10",
        "report",
        "base",
        "report",
        "tuned",
        "minutes",
    ]
    assert out[1].split()[:5] == ["2", "0.2", "0.05", "0.9900", "0.2000"]
    assert out[7] == "6 of 6 jobs done; best dev.ndcg@10 0.9900 in job 2 (model.rate=0.2 loss.temperature=0.05)"
    assert summary()["best"] == 2
    best = SWEEP / "conf" / "experiment" / "best.yaml"
    assert best.read_text().splitlines() == [
        "# @package _global_",
        "# dev.ndcg@10 0.9900, the best of a sweep of 6 jobs.",
        "# python -m embfit experiment=best",
        "defaults:",
        "- deep",
        "- override /task: score",
        "- _self_",
        "model:",
        "  rate: 0.2",
        "loss:",
        "  temperature: 0.05",
    ]
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(SWEEP / "conf"))
    assert main(["experiment=best", "run.dir=out"]) == 0
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    assert (config["model"]["rate"], config["model"]["depth"], config["loss"]["temperature"]) == (0.2, 9, 0.05)
    assert main(["pack", "check", str(SWEEP / "conf")]) == 0


def test_the_same_command_runs_what_failed_and_nothing_else(house, capsys):  # noqa: F811
    command = ["-m", "task=score", "model.path=a,bug,b", "model.rate=0.2"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "failed: unexpected KeyError: 'missing'" in out
    assert "2 of 3 jobs done" in out
    assert "job 1 (task=score, model.rate=0.2, model.path=bug): unexpected KeyError: 'missing'" in err
    assert [job["state"] for job in summary()["jobs"]] == ["done", "failed", "done"]
    before = [started(0), started(2)]
    Path("mended").touch()
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "2 of 3 jobs are done already" in err
    assert err.count("scoring") == 1
    assert [started(0), started(2)] == before
    assert [job["state"] for job in summary()["jobs"]] == ["done", "done", "done"]
    assert main([*command, f"run.dir={SWEEP}"]) == 0
    assert capsys.readouterr().err.count("scoring") == 0


def test_a_job_that_cannot_begin_does_not_end_the_others(house, capsys):  # noqa: F811
    wrong = SWEEP / "1" / "log.txt"
    wrong.mkdir(parents=True)  # a folder where a file should be
    command = ["-m", "task=score", "model.path=a,b,c", f"run.dir={SWEEP}"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert [job["state"] for job in summary()["jobs"]] == ["done", "failed", "done"]
    assert "failed: Is a directory" in out
    assert "embfit: error: job 1 (task=score, model.path=b): Is a directory" in err
    wrong.rmdir()
    assert main(command) == 0
    assert [job["state"] for job in summary()["jobs"]] == ["done"] * 3


def test_ctrl_c_stops_the_sweep_and_the_table_says_what_waits(house, capsys):  # noqa: F811
    command = ["-m", "task=score", "model.path=a,stop,b"]
    assert main(command) == 130
    assert [job["state"] for job in summary()["jobs"]] == ["done", "interrupted", "waiting"]
    Path("mended").touch()
    assert main(command) == 0
    assert [job["state"] for job in summary()["jobs"]] == ["done", "done", "done"]
    log = (SWEEP / "1" / "log.txt").read_text()
    assert log.count("scoring") == 2


def test_a_folder_holds_one_sweep(house, capsys):  # noqa: F811
    assert main(["-m", "task=score", "seed=1,2", "run.dir=outputs/sweeps"]) == 0
    assert main(["-m", "task=score", "seed=1,3", "run.dir=outputs/sweeps"]) == 2
    assert (
        "contains another sweep (task=score seed=1,2 by embfit.sweep.grid.Grid); name another"
        in capsys.readouterr().err
    )


def test_sweeps_that_name_no_folder_have_one_each(house, capsys):  # noqa: F811
    assert main(["-m", "task=score", "seed=1,2"]) == 0
    assert main(["-m", "task=score", "seed=1,3"]) == 0
    held = [json.loads((house / "outputs" / name / "sweep.json").read_text()) for name in ("sweeps", "sweeps-2")]
    assert [record["command"][-1] for record in held] == ["seed=1,2", "seed=1,3"]
    config = yaml.safe_load(Path("outputs/sweeps-2/1/config.yaml").read_text())
    assert config["run"]["dir"] == str(house / "outputs" / "sweeps-2" / "1")


def test_a_job_of_another_configuration_leaves_nothing_to_the_one_in_its_place(house, monkeypatch, capsys):  # noqa: F811
    file = house / "team" / "model" / "ours.yaml"
    file.parent.mkdir(parents=True)
    text = "# Ours.\n# python -m embfit model=ours\n_target_: acme.rooms.Model\npath: stop\ndepth: "
    file.write_text(f"{text}3\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    command = ["-m", "task=score", "model=ours", "seed=1,2"]
    assert main(command) == 130
    job = SWEEP / "0"
    (job / "training.json").write_text("{}")
    (job / "checkpoints").mkdir()
    assert main(command) == 130
    assert (job / "training.json").is_file()  # it goes on
    file.write_text(f"{text}4\n")
    assert main(command) == 130
    assert not (job / "training.json").exists()
    assert yaml.safe_load((job / "config.yaml").read_text())["model"]["depth"] == 4


def test_an_interval_in_a_grid(house, capsys):  # noqa: F811
    assert main(["-m", "task=score", "model.rate=interval(0,1)"]) == 2
    assert "model.rate is an interval" in capsys.readouterr().err


def test_a_search_goes_on_where_it_was_killed(house, capsys):  # noqa: F811
    pytest.importorskip("optuna")
    command = ["-m", "+sweep=optuna", "task=score", "model.rate=interval(0.0,1.0)", "model.path=a,bug"]
    assert main([*command, "sweep.trials=6"]) == 1
    states = [job["state"] for job in summary()["jobs"]]
    assert set(states) == {"done", "failed"}
    Path("mended").touch()
    capsys.readouterr()
    assert main([*command, "sweep.trials=8"]) == 0
    assert capsys.readouterr().err.count("scoring") == 2 + states.count("failed")
    assert [job["state"] for job in summary()["jobs"]] == ["done"] * 8
    assert main([*command, "sweep.trials=0"]) == 2
    assert "sweep.trials: expected a whole number of at least 1, got 0" in capsys.readouterr().err


def test_a_sweep_that_is_killed_goes_on(tmp_path):
    command = [*script(tmp_path), "-m", "model.path=a,sleep,b"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdout is not None
    while running.stdout.readline() != "asleep\n":
        pass
    os.kill(running.pid, signal.SIGKILL)
    running.wait(timeout=30)
    first = (tmp_path / SWEEP / "0" / "status.json").read_text()
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 3 jobs are done already" in done.stderr
    assert (tmp_path / SWEEP / "0" / "status.json").read_text() == first
    assert "3 of 3 jobs done" in done.stdout


def test_several_experiments_are_several_defaults(house, tmp_path):  # noqa: F811
    file = write_experiment(make_loader(), ["experiment=[deep,other]", "seed=3"], "Why.", tmp_path)
    assert yaml.safe_load(file.read_text()) == {"defaults": ["deep", "other", "_self_"], "seed": 3}


def test_what_no_file_can_say_is_told(house, tmp_path):  # noqa: F811
    loader = make_loader()
    overrides = ["model=legal", "~trainer.callbacks.early", "model.path='a b'", "logger=null", "+loss.x=1"]
    file = write_experiment(loader, overrides, "Why.", tmp_path)
    lines = file.read_text().splitlines()
    assert lines[3] == "# and on the command line, since no file can say it: ~trainer.callbacks.early +loss.x=1"
    assert yaml.safe_load(file.read_text()) == {
        "defaults": [{"override /model": "legal"}, {"override /logger": None}, "_self_"],
        "model": {"path": "a b"},
    }
    assert compose(loader, overrides[:1]).model.path == "lawful"


def test_a_sweep_goes_on_in_the_dated_folder_where_it_stopped(house, monkeypatch, capsys):  # noqa: F811
    dated = "run.dir=outputs/sweeps/2026-03-01/10-00-00"
    command = ["-m", "task=score", "model.path=a,bug"]
    assert main([*command, dated]) == 1
    monkeypatch.setattr("embfit.sweep.multirun.Path", _at("outputs/sweeps/2026-03-01/11-00-00"))
    Path("mended").touch()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err.count("scoring") == 1
    assert [folder.name for folder in Path("outputs/sweeps/2026-03-01").iterdir()] == ["10-00-00"]


def _at(now: str) -> Callable[[str], Path]:
    """Stand in for the time of day in the folder of a new sweep."""
    return lambda text: Path(now if text == str(SWEEP) else text)


def test_the_best_is_compared_with_the_default_over_queries_and_seeds(house, capsys):  # noqa: F811
    assert main(["-m", "task=score", "model.rate=0.5,0.3", "seed=0,1"]) == 0
    out = capsys.readouterr().out
    assert "best dev.ndcg@10 1.0000 (mean of 2 seeds) in jobs 2, 3 (model.rate=0.3)" in out
    verdict = summary()["against_default"]
    assert (verdict["metric"], verdict["split"], verdict["queries"]) == ("ndcg@10", "test", 4)
    assert verdict["difference"] == pytest.approx(0.04)  # what a rate of 0.5, the default, loses
    assert verdict["by_seed"] == pytest.approx([0.04, 0.04])
    assert verdict["p"] == pytest.approx(2 / 2**4, abs=0.02)  # of 4 equal differences, all flipped one way or the other
    assert "best − default: test ndcg@10 +0.0400 (too few queries for an interval, p = 0.1" in out
    assert yaml.safe_load((SWEEP / "conf/experiment/best.yaml").read_text())["model"] == {"rate": 0.3}
    assert main(["-m", "task=score", "model.rate=0.1,0.2", "run.dir=other"]) == 0
    assert "no finished job has the default value of every key" in capsys.readouterr().out
    typed = json.loads(Path("other/summary.json").read_text())["command"]
    assert typed == "python -m embfit -m run.dir=other task=score model.rate=0.1,0.2"


def test_two_objectives_have_a_front(house, capsys):  # noqa: F811
    objectives = ["sweep.objective=[dev.ndcg@10,config.model.depth]", "sweep.direction=[maximize,minimize]"]
    assert main(["-m", "+sweep=grid", *objectives, "task=score", "model.rate=0.3,0.5", "model.depth=3,4"]) == 0
    out = capsys.readouterr().out
    assert "best dev.ndcg@10 1.0000, config.model.depth 3.0000 in job 0 (model.rate=0.3 model.depth=3)" in out
    assert summary()["front"] == [[0]]
    assert main(["-m", "+sweep=grid", "sweep.objective=[a,b]", "task=score", "seed=1,2"]) == 2
    assert "sweep.objective has 2 entries and sweep.direction has 1" in capsys.readouterr().err


def test_a_sweep_stops_where_its_first_job_lacks_the_objective(house, capsys):  # noqa: F811
    command = ["-m", "+sweep=grid", "task=score", "model.rate=0.1,0.2"]
    assert main([*command, "sweep.objective=systems.tuned.metrics.ndgc@10"]) == 1
    err = capsys.readouterr().err
    assert (
        "embfit: error: sweep.objective=systems.tuned.metrics.ndgc@10: job 0 has ended and its report has no such "
        "number; did you mean 'systems.tuned.metrics.ndcg@10'?\n"
        "the sweep has stopped; choose one of dev.ndcg@10, systems.base.metrics.ndcg@10, "
        "systems.tuned.metrics.ndcg@10, minutes, or config.KEY\n"
    ) in err
    assert [job["state"] for job in summary()["jobs"]] == ["done", "waiting"]
    assert main([*command, "sweep.objective=systems.tuned.metrics.ndcg@10"]) == 0
    assert [job["state"] for job in summary()["jobs"]] == ["done", "done"]
    assert main([*command, "sweep.objective=dev.ndgc@10", f"run.dir={SWEEP}"]) == 1  # all of them are done


def test_without_the_default_objective_a_grid_goes_on_and_a_search_stops(house, capsys):  # noqa: F811
    pytest.importorskip("optuna")
    command = ["-m", "task=count", "run.dir=sweep"]
    assert main([*command, "+sweep=grid", "seed=1,2"]) == 0
    assert "no report has dev.ndcg@10, so there is no best job (set sweep.objective)" in capsys.readouterr().out
    assert main([*command, "run.dir=search", "+sweep=optuna", "model.rate=0.1,0.2"]) == 1
    assert "sweep.objective=dev.ndcg@10: job 0 has ended and its report has no such number" in capsys.readouterr().err
    assert not Path("search/1").exists()


def test_the_latest_unfinished_sweep_of_the_same_command(house, monkeypatch, capsys):  # noqa: F811
    stamp = "hydra.sweep.dir=outputs/sweeps/2026-03-01/"
    assert main(["-m", "task=score", "model.path=a,bug", f"{stamp}10-00-00"]) == 1
    assert main(["-m", "task=score", "model.path=a,b", f"{stamp}11-00-00"]) == 0
    from embfit.sweep.folder import unfinished

    grid = "embfit.sweep.grid.Grid"
    assert unfinished(SWEEP, ["task=score", "model.path=a,bug"], grid) == SWEEP / "2026-03-01" / "10-00-00"
    assert unfinished(SWEEP, ["task=score", "model.path=a,bug"], "embfit.sweep.search.Optuna") is None
    assert unfinished(SWEEP, ["task=score", "model.path=a,b"], grid) is None
    assert unfinished(SWEEP, ["task=score"], grid) is None


def test_a_record_that_cannot_be_read_is_no_obstacle_to_others(house, capsys):  # noqa: F811
    broken = SWEEP / "2026-03-01" / "10-00-00"
    broken.mkdir(parents=True)
    (broken / "sweep.json").write_text('{"command": [')
    from embfit.sweep.folder import unfinished

    assert unfinished(SWEEP, ["task=score"], "embfit.sweep.grid.Grid") is None
    assert main(["-m", "task=score", "seed=1,2", f"run.dir={broken}"]) == 2
    assert f"{broken}/sweep.json cannot be read; name another folder with run.dir=DIR" in capsys.readouterr().err


def test_a_grid_and_a_search_of_the_same_values_are_two_sweeps(house, capsys):  # noqa: F811
    pytest.importorskip("optuna")
    assert main(["-m", "+sweep=grid", "task=score", "model.rate=0.1,0.2"]) == 0
    before = sorted(path.name for path in SWEEP.iterdir())
    table = (SWEEP / "summary.json").read_bytes()
    capsys.readouterr()
    assert main(["-m", "+sweep=optuna", "task=score", "model.rate=0.1,0.2", f"run.dir={SWEEP}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "contains another sweep (task=score model.rate=0.1,0.2 by embfit.sweep.grid.Grid)" in err
    assert main(["-m", "+sweep=optuna", "task=score"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "sweep=optuna has nothing to vary" in err
    assert sorted(path.name for path in SWEEP.iterdir()) == before
    assert (SWEEP / "summary.json").read_bytes() == table


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["model=smal,leagl", "model.depth=1,2"],
            ["model=smal: no such choice; did you mean 'small'?", "model=leagl: no such choice; did you mean 'legal'?"],
        ),
        (["model.depth=abc,-1", "seed=1,2"], ['got "abc" (command line)', "of at least 1, got -1 (command line)"]),
        (["+sweep=grid", "sweep.direction=up", "seed=1,2"], ["sweep.direction: ", "(command line)"]),
        (["+sweep=optuna", "model.rate=interval(0,1)", "model.depth=0,1"], ["model.depth: ", "got 0 (command line)"]),
        (
            ["+sweep=grid", "sweep.objective=config.model.dept", "seed=1,2"],
            ["number at this key; did you mean 'config.model.depth'? (command line)"],
        ),
        (["run.dir=a,b", "seed=1,2"], ["run.dir=a,b: a sweep has one folder"]),
        (["run.dir=é", "seed=1,2"], ["run.dir: cannot read the value é; quote it: run.dir='\"é\"' (command line)"]),
        (["run.dir=x (1)", "seed=1,2"], ["run.dir: cannot read the value x (1); quote it: run.dir='\"x (1)\"'"]),
        (["run={dir: x}", "seed=1,2"], ["run.dir: a file cannot name a sweep's folder; give run.dir"]),
        (["++hydra.run.dir=x", "seed=1,2"], ["++hydra.run.dir=x would be ignored; set run.dir=x"]),
        (["loss=[plain,nested]", "seed=1,2"], ["loss takes one choice; -m loss=plain,nested runs one job for each"]),
        (
            ["hydra.sweeper._target_=acme.Sweeper", "seed=1,2"],
            ["is not supported; choose sweep=grid or sweep=optuna"],
        ),
        (["hydra.launcher._target_=acme.Launcher", "seed=1,2"], ["hydra/launcher=acme.Launcher is not supported"]),
        (["hydra.run.dir=x", "seed=1,2"], ["hydra.run.dir=x would be ignored; set run.dir=x"]),
    ],
)
def test_all_that_is_wrong_is_said_at_once_and_nothing_made(house, capsys, arguments, told):  # noqa: F811
    assert main(["-m", "task=score", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    for words in told:
        assert err.count(words) == 1, err
    assert not (house / "outputs").exists()


def test_a_typo_is_found_before_anything_heavy_is_imported(tmp_path):
    heavy = "sys.modules['acme.rooms'] = None"  # what the sound job names: whoever imports it fails, and says so
    command = script(tmp_path)
    program = tmp_path / "small_house.py"
    program.write_text(program.read_text().replace("code = main", f"{heavy}\ncode = main"))
    done = subprocess.run(
        [*command, "-m", "model=small,legl"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == "embfit: error: model=legl: no such choice; did you mean 'legal'? (command line)\n"


def test_finished_jobs_of_another_configuration_are_not_ranked_with_new_ones(house, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "conf"))
    experiment = house / "conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\n# Mine.\n# python -m embfit experiment=mine\nmodel:\n  depth: 9\n")
    command = ["-m", "task=score", "experiment=mine", "model.path=a,bug", "model.rate=0.2"]
    assert main(command) == 1
    before = started(0)
    experiment.write_text(experiment.read_text().replace("9", "7"))
    capsys.readouterr()
    assert main(command) == 2
    assert (
        f"run.dir={SWEEP}: job 0 is finished, and its configuration has changed since (model.depth was 9, is 7), so "
        "its result cannot be ranked with new ones; undo the change, or begin a new sweep with run.dir=DIR"
    ) in capsys.readouterr().err
    experiment.write_text(experiment.read_text().replace("7", "9"))
    assert main(command) == 1  # goes on with what failed
    assert started(0) == before
