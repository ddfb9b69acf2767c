"""The command line from end to end, on a small house whose tasks end in every way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
import yaml

from embfit.app import main
from embfit.run.unique_folder import unique_folder
from tests.compose.conftest import HOUSE, house  # noqa: F401

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "pytorch_lightning", "datasets", "numpy", "pyarrow")


def state(folder: str | Path) -> tuple[str, str | None, str | None]:
    status = json.loads((Path(folder) / "status.json").read_text())
    return status["state"], status["stage"], status["error"]


def test_a_task_runs_in_its_folder(house, capsys):  # noqa: F811
    assert main(["seed=3", "task.top=4", "query=what's this, then?"]) == 0
    out, err = capsys.readouterr()
    assert out == "counted to 4 with small, seed 3\n"
    assert err == "counting\n"
    folder = house / "outputs" / "count"
    assert (folder / "result.txt").read_text() == "4 False what's this, then?"
    assert state(folder) == ("done", None, None)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["run"]["dir"] == "outputs/count"
    assert config["model"]["seed"] == 3
    assert "hydra" not in config
    provenance = json.loads((folder / "provenance.json").read_text())
    overrode = [{"value": 0, "source": "conf/config.yaml:14"}]
    assert provenance["values"]["seed"] == {"value": 3, "source": "command line", "overrode": overrode}
    written = {"value": 3, "source": "conf/model/small.yaml:8", "written": "${seed}"}
    assert provenance["values"]["model.seed"] == written
    assert provenance["choices"]["model"] == {"value": "small", "source": "conf/config.yaml:6"}
    assert not (folder / ".hydra").exists()


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("user error", 1, "queries.jsonl:4: no _id; give each query one"),
        ("bug", 1, "unexpected KeyError: 'missing'"),
        (
            "full disk",
            1,
            "the disk is full: outputs/count/model.bin; free some space, or put run.dir on another disk",
        ),
        ("exit after interrupt", 130, "interrupted"),
        ("terminated", 130, "interrupted"),
    ],
)
def test_each_end_has_its_message_and_exit_code(house, capsys, path, code, told):  # noqa: F811
    assert main([f"model.path={path}"]) == code
    err = capsys.readouterr().err.splitlines()
    kind = "interrupted" if code == 130 else "failed"
    assert err[:2] == ["counting", f"embfit: error: {told}"]
    hint = "resume it with: resume=outputs/count" if code == 130 else "the run's log: outputs/count/log.txt"
    assert err[2:] == [f"  {hint}"]
    assert state("outputs/count") == (kind, "counting", told)


def test_a_traceback_on_request(house, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("EMBFIT_FULL_ERROR", "1")
    assert main(["model.path=bug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("embfit: error: unexpected KeyError: 'missing'\n  the run's log: outputs/count/log.txt\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["modle=small"],
        ["model.depth=abc"],
        ["model.depth=101"],
        ["--bogus"],
        ["--cfg", "job", "--package", "nowhere"],
        ["seed=1,2"],
        ["-m", "run.dir=x,y"],
        ["-m", "model.depth=1,-1"],
        ["-m", "model=small,legl"],
        ["resume=nowhere"],
        ["-m", "resume=nowhere"],
        ["-sc", "nothing=bash"],
    ],
)
def test_wrong_usage_is_exit_code_2_before_anything_is_made(house, capsys, arguments):  # noqa: F811
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("embfit: error: ")
    assert len(err.splitlines()) == 1
    assert not list(house.glob("outputs/*/status.json"))


@pytest.mark.parametrize("plus", ["", "++"])
def test_a_folder_that_is_named_as_nothing(house, capsys, plus):  # noqa: F811
    for many in ([], ["-m", "seed=1,2"]):
        assert main([*many, f"{plus}run.dir="]) == 2
        assert capsys.readouterr().err == "embfit: error: run.dir: is empty; name a folder (command line)\n"
    assert main(["-m", "seed=1,2", f"{plus}run.dir=null"]) == 2
    assert main(["store.dir="]) == 2
    assert "store.dir: is empty; name a folder (command line)" in capsys.readouterr().err
    assert main(["resume="]) == 2
    assert capsys.readouterr().err.startswith("embfit: error: resume= names no folder")
    assert list(house.iterdir()) == []


def test_runs_that_name_no_folder_have_one_each(house, capsys):  # noqa: F811
    for seed in (3, 4, 5):
        assert main([f"seed={seed}"]) == 0
    folders = ["outputs/count", "outputs/count-2", "outputs/count-3"]
    configs = [yaml.safe_load((Path(folder) / "config.yaml").read_text()) for folder in folders]
    assert [(config["seed"], config["run"]["dir"]) for config in configs] == list(zip((3, 4, 5), folders, strict=True))
    assert main(["run.dir=outputs/count"]) == 2  # a name is a name


def test_a_folder_of_ones_own_is_unmade_with_nothing_in_it(tmp_path):
    (tmp_path / "there").mkdir()
    wanted = tmp_path / "there" / "day" / "time"
    with pytest.raises(ValueError), unique_folder(wanted):  # noqa: PT011
        raise ValueError
    assert list((tmp_path / "there").iterdir()) == []
    with unique_folder(wanted) as first, unique_folder(wanted) as second:
        (first / "file").touch()
    assert (first, second) == (wanted, wanted.with_name("time-2"))
    with pytest.raises(ValueError), unique_folder(wanted) as third:  # noqa: PT011, PT012
        (third / "file").touch()
        raise ValueError
    assert (wanted.with_name("time-3") / "file").is_file()


def test_a_folder_with_a_plus_is_the_folder(house, capsys):  # noqa: F811
    assert main(["++run.dir=out", "model.path=exit after interrupt"]) == 130
    for plus in ("+", "++"):
        assert main([f"{plus}resume=out", "seed=3"]) == 2
        assert "resume=out continues under that run's own configuration; leave out seed=3" in capsys.readouterr().err
    assert main(["-m", "++run.dir=sweep", "seed=1,2"]) == 0
    assert state("sweep/1") == ("done", None, None)
    assert not Path("outputs/sweeps").exists()


def test_what_a_file_cannot_say_is_refused(house, monkeypatch, capsys):  # noqa: F811
    file = house / "team" / "experiment" / "here.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nrun:\n  dir: here\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    assert main(["-m", "experiment=here", "seed=1,2"]) == 2
    err = capsys.readouterr().err
    assert "run.dir: a file cannot name a sweep's folder; give run.dir=DIR on the command line" in err
    assert "(team/experiment/here.yaml:3)" in err
    assert main(["-m", "experiment=here", "seed=1,2", "run.dir=there"]) == 0
    assert main(["experiment=here"]) == 0
    assert state("here") == ("done", None, None)
    file.write_text("# @package _global_\nresume: here\n")
    capsys.readouterr()
    for many in ([], ["-m", "seed=1,2"]):
        assert main([*many, "experiment=here"]) == 2
        said = "resume: here would be ignored; type it on the command line: resume=here (team/experiment/here.yaml:2)"
        assert said in capsys.readouterr().err


def test_an_interrupted_run_is_not_overwritten_by_another(house, capsys):  # noqa: F811
    assert main(["model.path=exit after interrupt", "run.dir=out"]) == 130
    Path("out/checkpoints").mkdir()
    Path("out/checkpoints/step.pt").write_text("hours")
    assert main(["model.path=small", "run.dir=out"]) == 2
    assert "run.dir=out holds an unfinished run of another configuration; resume=out" in capsys.readouterr().err
    assert Path("out/checkpoints/step.pt").read_text() == "hours"
    assert main(["model.path=exit after interrupt", "run.dir=out"]) == 130  # as a scheduler that queues it again does
    assert "resuming the unfinished run in out" in capsys.readouterr().err


def test_a_run_goes_on_where_it_was_begun(house, monkeypatch, capsys):  # noqa: F811
    assert main(["model.path=exit after interrupt", "run.dir=out"]) == 130
    (house / "elsewhere").mkdir()
    monkeypatch.chdir(house / "elsewhere")
    capsys.readouterr()
    assert main(["resume=../out"]) == 2
    assert capsys.readouterr().err == (
        f"embfit: error: resume=../out began in {house}, where its relative paths start; resume it from there: "
        f"cd {house} && python -m embfit resume={house / 'elsewhere' / '..' / 'out'}\n"
    )


def test_a_finished_folder_is_refused(house, capsys):  # noqa: F811
    assert main(["run.dir=out"]) == 0
    assert main(["run.dir=out"]) == 2
    assert "run.dir=out holds a finished run; choose another run.dir" in capsys.readouterr().err


@pytest.mark.parametrize("plus", ["", "++"])
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_hydras_name_for_the_folder_is_not_passed_over_in_silence(house, capsys, key, plus):  # noqa: F811
    assert main([f"{plus}{key}=out"]) == 2
    assert f"{plus}{key}=out would be ignored; set run.dir=out" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["hydra.job.chdir=true", "+hydra.job.env_set.OMP_NUM_THREADS=4"])
@pytest.mark.parametrize("many", [[], ["-m", "seed=1,2"]])
def test_how_hydra_runs_jobs_is_not_passed_over_in_silence(house, capsys, setting, many):  # noqa: F811
    assert main([*many, setting]) == 2
    assert f"{setting} would be ignored: embfit runs its jobs without Hydra" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(house, capsys):  # noqa: F811
    Path("file").touch()
    assert main(["run.dir=file/out"]) == 2
    assert capsys.readouterr().err == "embfit: error: run.dir: file is a file; name a folder (command line)\n"
    assert main(["run.dir=file"]) == 2
    assert capsys.readouterr().err == "embfit: error: run.dir: file is a file; name a folder (command line)\n"


def test_a_folder_at_home(house, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HOME", str(house / "at home"))
    folder = house / "at home" / "out"
    assert main(["run.dir=~/out", "model.path=exit after interrupt"]) == 130
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["path"] = "small"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["resume=~/out"]) == 0
    assert state(folder) == ("done", None, None)
    assert not Path("~").exists()


def test_a_sweep_runs_a_job_per_combination(house, capsys):  # noqa: F811
    assert main(["-m", "seed=1,2", "model=small,legal"]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        "counted to 3 with small, seed 1",
        "counted to 3 with lawful, seed 1",
        "counted to 3 with small, seed 2",
        "counted to 3 with lawful, seed 2",
    ]
    folder = house / "outputs" / "sweeps" / "3"
    assert state(folder) == ("done", None, None)
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["dir"] == str(folder)
    assert json.loads((folder / "provenance.json").read_text())["values"]["run.dir"]["source"] == "sweep"


def test_a_failed_job_of_a_sweep_does_not_hide_and_the_others_run(house, capsys):  # noqa: F811
    assert main(["-m", "model.path=a,bug,b", "seed=1"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[4] for line in out.splitlines() if line.startswith("counted")] == ["a,", "bug,", "b,"]
    lines = err.splitlines()
    assert "embfit: error: job 1 (seed=1, model.path=bug): unexpected KeyError: 'missing'" in lines
    assert lines[-1] == "embfit: error: 1 of the sweep's jobs failed: seed=1 model.path=bug"
    assert [state(f"outputs/sweeps/{job}")[0] for job in range(3)] == ["done", "failed", "done"]


def test_an_experiment_may_ask_for_a_sweep(house, monkeypatch, capsys):  # noqa: F811
    file = house / "team" / "experiment" / "grid.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n      task.top: 5\n"
    )
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    assert main(["experiment=grid"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("counted")] == [
        "counted to 5 with small, seed 1",
        "counted to 5 with small, seed 2",
    ]


def test_an_interrupted_run_goes_on_under_its_own_configuration(house, capsys):  # noqa: F811
    assert main(["model.path=exit after interrupt", "run.dir=out", "task.top=7"]) == 130
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    config["model"]["path"] = "small"
    Path("out/config.yaml").write_text(yaml.safe_dump(config))
    Path("out").rename("moved")
    assert main(["resume=moved", "task.top=8"]) == 2
    assert main(["task=count", "resume=moved"]) == 0
    assert Path("moved/result.txt").read_text() == "7 True None"
    assert state("moved") == ("done", None, None)
    capsys.readouterr()
    assert main(["resume=moved"]) == 2
    assert "moved is finished already" in capsys.readouterr().err


def test_the_configuration_is_shown_and_nothing_done(house, capsys):  # noqa: F811
    assert main(["--cfg", "job", "seed=4"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["seed"] == "${seed}"
    assert "hydra" not in shown
    assert main(["--cfg", "job", "--resolve", "-p", "model", "seed=4"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 4
    assert not Path("outputs").exists()


def test_where_each_value_comes_from(house, capsys):  # noqa: F811
    assert main(["--explain", "experiment=deep", "model.rate=0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}
    assert told["experiment"] == '"deep" command line, over null in conf/config.yaml:10'
    assert told["model"] == '"legal" conf/experiment/deep.yaml:5, over "small" in conf/config.yaml:6'
    assert told["model.path"] == '"lawful" acme-pack==1.2:model/legal.yaml:4'
    assert told["model.depth"] == "9 conf/experiment/deep.yaml:8, over 4 in acme-pack==1.2:model/legal.yaml:5"
    assert told["model.rate"] == "0.1 command line, over 0.5 in acme-pack==1.2:model/legal.yaml:7"
    assert told["model.seed"] == "0 acme-pack==1.2:model/legal.yaml:8 as ${seed}"
    assert not Path("outputs").exists()
    assert main(["task=explain", "--explain", "model.depth"]) == 0
    assert capsys.readouterr().out == "model.depth  3  conf/model/small.yaml:5\n"
    assert main(["--explain", "model.dept"]) == 2
    assert "error: model.dept: there is no such key; did you mean 'model.depth'?" in capsys.readouterr().err


def test_a_key_that_its_choice_lacks_is_explained_and_refused(house, capsys, monkeypatch):  # noqa: F811
    (house / "mine" / "experiment").mkdir(parents=True)
    file = house / "mine" / "experiment" / "typo.yaml"
    file.write_text("# @package _global_\nmodel:\n  dept: 9\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "mine"))
    assert main(["--explain", "model.dept", "experiment=typo"]) == 2
    out, err = capsys.readouterr()
    assert out == "model.dept  9  mine/experiment/typo.yaml:3\n"
    assert "model.dept: acme.rooms.Model has no 'dept'; did you mean 'depth'?" in err


def test_completion_offers_choices_and_keys(house, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("COMP_LINE", "embfit model=")
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["model=legal", "model=small"]
    monkeypatch.setenv("COMP_LINE", "embfit model.de")
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["model.depth="]
    assert main(["-sc", "install=bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out


def test_version_and_search_path(house, capsys):  # noqa: F811
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "embfit 0.1.0\n"
    assert main(["--info", "searchpath"]) == 0
    assert "acme-pack==1.2" in capsys.readouterr().out


def script(tmp_path: Path, body: str = "") -> list[str]:
    """Return a command that runs embfit on the small house in a process of its own."""
    file = tmp_path / "small_house.py"
    file.write_text(
        textwrap.dedent(f"""\
        import sys
        from pathlib import Path
        sys.path[:0] = [{str(HOUSE / "packs")!r}, {str(ROOT)!r}]
        from embfit.compose import search_path
        search_path.house = lambda: search_path.ConfigSource("embfit", Path({str(HOUSE / "conf")!r}))
        from embfit.app import main
        code = main(sys.argv[1:])
        heavy = sorted(set({HEAVY!r}) & set(sys.modules))
        if heavy:
            print("imported", *heavy, file=sys.stderr)
        sys.exit(code)
        """)
    )
    return [sys.executable, str(file)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--cfg", "job"], 0),
        (["--explain"], 0),
        (["modle=x"], 2),
        (["model=legl"], 2),
        (["seed=1"], 0),
        (["runs", "list", "."], 1),
    ],
)
def test_nothing_heavy_is_imported_before_a_task_asks_for_it(tmp_path, arguments, code):
    done = subprocess.run(
        [*script(tmp_path), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert "imported" not in done.stderr


def test_ctrl_c(tmp_path):
    running = subprocess.Popen(
        [*script(tmp_path), "model.path=sleep"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "counted to 3 with sleep, seed 0\n"
    assert running.stdout.readline() == "asleep\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err.splitlines()[-2:] == ["embfit: error: interrupted", "  resume it with: resume=outputs/count"]
    assert state(tmp_path / "outputs" / "count")[:2] == ("interrupted", "counting")


def test_a_reader_that_leaves_early(tmp_path):
    command = " ".join([*script(tmp_path), "--help"])
    done = subprocess.run(
        f"set -o pipefail; {command} | head -1", shell=True, executable="/bin/bash", capture_output=True, text=True,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.stderr == ""


def run_embfit(*arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "embfit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_a_bare_checkout_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_embfit("--help", PYTHONPATH=str(ROOT), PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert "  * minilm " in done.stdout
    assert "\ntask=\n" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "embfit.app" in imported
    assert not imported & set(HEAVY)  # they take seconds; an answer in a second is promised


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment without embfit that sees the packages of this one; returns its Python."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_installation_from_another_folder(tmp_path, monkeypatch, environment, editable):
    source = tmp_path / "checkout"  # a build writes into its source
    for name in ("embfit", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_text((ROOT / name).read_text() if (ROOT / name).is_file() else "")
    install = [str(environment), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall"]
    subprocess.run([*install, *(["-e"] if editable else []), str(source)], check=True)
    if not editable:
        shutil.rmtree(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    where = subprocess.run(
        [str(environment), "-c", "from embfit.compose.search_path import house; print(house().folder)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert where == str(source / "conf") if editable else where.endswith("site-packages/embfit/conf")
    done = run_embfit("--cfg", "job", "-p", "model", python=str(environment))
    assert yaml.safe_load(done.stdout)["_target_"] == "embfit.model.Pretrained", done.stderr
    script = subprocess.run([environment.with_name("embfit"), "--version"], capture_output=True, text=True, check=True)
    assert script.stdout == "embfit 0.1.0\n"
