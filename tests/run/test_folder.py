import json
import logging
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from embfit.atomic_files import write_text
from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.run import folder as run_folder
from embfit.run.folder import RunFolder
from embfit.run.record import read_record, read_state
from embfit.run.resume import holds_run_of, recorded_config
from embfit.run.versions import versions

CONFIG = {
    "seed": 3,
    "run": {"dir": "out"},
    "model": {"prompt": "für"},
    "task": {"_target_": "tests.run.test_folder.train"},
}
ORIGINS = {"seed": "command line", "model.prompt": "conf/model/x.yaml:3"}


@task(
    outputs=("checkpoints", "training.json", "training-*.json", "model", "report.json", "rankings"),
    costly=("checkpoints/step.pt", "checkpoints/*/step.pt", "training.json"),
)
def train() -> None:
    """A task that trains for hours."""


@task(outputs=("queries.parquet", "journal"), paid=("journal",))
def ask() -> None:
    """A task that pays for answers."""


@task(restarts=True, outputs=("requests.json",))
def serve() -> None:
    """A task that is started again and again."""


def task_is(name: str) -> dict:
    return {"task": {"_target_": f"tests.run.test_folder.{name}"}}


def make(tmp_path, **more) -> RunFolder:
    return RunFolder(tmp_path / "out", CONFIG, ORIGINS, ["seed=3", "query=it is"], **more)


def status(tmp_path) -> dict:
    return json.loads((tmp_path / "out" / "status.json").read_text())


def test_what_was_asked_is_written_down(tmp_path):
    with make(tmp_path) as run:
        assert status(tmp_path)["state"] == "running"
    folder = tmp_path / "out"
    assert run.dir == folder
    assert yaml.safe_load((folder / "config.yaml").read_text()) == CONFIG
    assert json.loads((folder / "provenance.json").read_text()) == {
        "choices": {},
        "values": {
            "seed": {"value": 3, "source": "command line"},
            "run.dir": {"value": "out", "source": ""},
            "model.prompt": {"value": "für", "source": "conf/model/x.yaml:3"},
            "task._target_": {"value": "tests.run.test_folder.train", "source": ""},
        },
    }
    found = json.loads((folder / "versions.json").read_text())
    assert found["overrides"] == ["seed=3", "query=it is"]
    assert found["packages"]["hydra-core"].startswith("1.3.")
    assert run.command == "python -m embfit seed=3 'query=it is'"


def test_a_finished_run(tmp_path):
    with make(tmp_path) as run:
        with run.stage("first"):
            time.sleep(0.01)
            assert status(tmp_path)["stage"] == "first"
        with run.stage("second"):
            pass
        with run.stage("first"):
            time.sleep(0.01)
    assert list(run.timings) == ["first", "second"]
    assert 0.02 <= run.timings["first"] < 1
    end = status(tmp_path)
    assert (end["state"], end["stage"], end["error"]) == ("done", None, None)
    assert end["started"] <= end["finished"]
    assert read_state(tmp_path / "out") == "done"


def test_a_failed_run_keeps_stage_error_and_traceback(tmp_path):
    with pytest.raises(UserError) as error, make(tmp_path) as run, run.stage("load data"):
        raise UserError("a.tsv:3: one column")
    end = status(tmp_path)
    assert (end["state"], end["stage"], end["error"]) == ("failed", "load data", "a.tsv:3: one column")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Traceback" in log
    assert log.rstrip().endswith("UserError: a.tsv:3: one column")
    assert error.value.__notes__ == [f"the run's log: {tmp_path / 'out' / 'log.txt'}"]


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt) as error, make(tmp_path) as run, run.stage("train"):
        raise KeyboardInterrupt
    assert (status(tmp_path)["state"], status(tmp_path)["stage"]) == ("interrupted", "train")
    assert error.value.__notes__ == [f"resume it with: resume={tmp_path / 'out'}"]


def test_everything_logged_is_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with make(tmp_path):
        logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").info("later")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "INFO some.library: chatter" in log
    assert "later" not in log


def test_a_finished_folder_is_not_written_to_again(tmp_path):
    with make(tmp_path):
        pass
    with pytest.raises(ConfigError, match=r"holds a finished run; choose another run\.dir, or remove the folder"):
        make(tmp_path).__enter__()
    assert status(tmp_path)["state"] == "done"


def test_a_folder_in_use_is_left_alone(tmp_path):
    with make(tmp_path), pytest.raises(ConfigError, match="another run is using it"):
        make(tmp_path).__enter__()
    assert status(tmp_path)["state"] == "done"


def test_an_unfinished_folder_can_be_used_again(tmp_path):
    with pytest.raises(ValueError), make(tmp_path):  # noqa: PT011
        raise ValueError
    before = (tmp_path / "out" / "config.yaml").stat().st_mtime_ns
    with make(tmp_path, resuming=True) as run:
        assert run.resuming
    assert (tmp_path / "out" / "config.yaml").stat().st_mtime_ns == before
    assert status(tmp_path)["state"] == "done"


def interrupted(tmp_path, made: dict[str, str], **changes) -> Path:
    """Leave a run that was interrupted when it had made some files."""
    folder = tmp_path / "out"
    run = RunFolder(folder, CONFIG | changes, ORIGINS).__enter__()
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    run.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    return folder


@pytest.mark.parametrize("made", ["checkpoints/step.pt", "checkpoints/fold-0/step.pt", "training.json"])
def test_what_another_configuration_trained_is_not_overwritten(tmp_path, made):
    folder = interrupted(tmp_path, {made: "hours"}, seed=4)
    with pytest.raises(ConfigError) as error:
        make(tmp_path).__enter__()
    assert str(error.value) == (
        f"run.dir={folder} holds an unfinished run of another configuration; resume={folder} continues that one, or "
        "choose another run.dir, or remove the folder"
    )
    assert (folder / made).read_text() == "hours"
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 4
    with RunFolder(folder, CONFIG, ORIGINS, resuming=True):  # nothing holds the folder
        pass


def test_a_run_that_takes_the_place_of_another_leaves_nothing_of_it(tmp_path, caplog):
    made = ["checkpoints/step.pt", "training.json", "training-fold-0.json", "model/a", "report.json", "rankings/a.trec"]
    folder = interrupted(tmp_path, dict.fromkeys(made, "of A"), seed=4)
    (folder / "notes.md").write_text("mine")
    with make(tmp_path, overwrite=True) as run:
        assert not run.resuming
    assert "had another configuration, so it starts from the beginning" in caplog.text
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "provenance.json", "versions.json", "status.json", "log.txt", "notes.md", ".lock")
    }
    assert holds_run_of(folder, CONFIG)


def test_a_run_that_is_killed_while_it_takes_the_place_of_another_leaves_no_mixture(tmp_path, monkeypatch):
    folder = interrupted(tmp_path, {"training.json": "of A", "model/a": "of A"}, seed=4)

    def killed(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(MemoryError):
        make(tmp_path, overwrite=True).__enter__()
    assert not (folder / "config.yaml").exists()  # else A could be resumed, or pass for this one


def test_what_ranks_said_is_no_training(tmp_path):
    folder = interrupted(tmp_path, {"checkpoints/rank-1.txt": "no such device"}, seed=4)
    with make(tmp_path):
        assert not (folder / "checkpoints").exists()


def test_a_report_of_a_run_that_failed_is_not_the_next_ones(tmp_path):
    folder = interrupted(tmp_path, {"report.json": "of A"}, seed=4)
    with make(tmp_path):
        assert not (folder / "report.json").exists()


def test_a_folder_that_was_no_runs_keeps_what_it_holds(tmp_path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    with make(tmp_path):
        pass
    assert (tmp_path / "out" / "model").is_dir()
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds checkpoints/, and no run of embfit; choose another run"):
        RunFolder(tmp_path / "other", CONFIG, ORIGINS).__enter__()


def test_what_a_task_makes_is_told_by_that_task(tmp_path):
    folder = interrupted(tmp_path, {"requests.json": "of B", "report.json": "of B"}, **task_is("serve"))
    with make(tmp_path):
        assert not (folder / "requests.json").exists()  # the earlier task's
        assert not (folder / "report.json").exists()  # this one's, which might pass for it
    folder = interrupted(tmp_path / "other", {"training.json": "hours"})
    with pytest.raises(ConfigError, match="holds an unfinished run of another configuration"):
        RunFolder(folder, CONFIG | task_is("serve"), {}).__enter__()


def test_what_was_paid_for_is_never_removed(tmp_path):
    folder = interrupted(tmp_path, {"queries.parquet": "of A", "journal": "answers"}, **task_is("ask"), seed=4)
    with RunFolder(folder, CONFIG | task_is("ask"), ORIGINS, overwrite=True):
        assert not (folder / "queries.parquet").exists()
        assert (folder / "journal").read_text() == "answers"


def test_a_run_of_a_task_that_is_not_there_any_more_is_left_alone(tmp_path):
    folder = interrupted(tmp_path, {"training.json": "hours"}, seed=4)
    provenance = (folder / "provenance.json").read_text().replace("test_folder.train", "test_folder.gone")
    (folder / "provenance.json").write_text(provenance)
    with pytest.raises(ConfigError, match=r"what that made is not known: tests\.run\.test_folder has no 'gone'"):
        make(tmp_path, overwrite=True).__enter__()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_task_that_restarts_is_a_new_run_each_time(tmp_path, error):
    run = RunFolder(tmp_path / "out", CONFIG | task_is("serve"), ORIGINS).__enter__()
    (tmp_path / "out" / "requests.json").touch()
    run.__exit__(error, error and error(), None)
    with RunFolder(tmp_path / "out", CONFIG | task_is("serve"), ORIGINS) as again:
        assert not again.resuming
        assert not (tmp_path / "out" / "requests.json").exists()
    assert status(tmp_path)["state"] == "done"


def test_a_run_of_the_same_configuration_goes_on_unasked(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = interrupted(tmp_path, {"checkpoints/step.pt": "hours"})
    with make(tmp_path) as run:
        assert run.resuming
        assert (folder / "checkpoints" / "step.pt").read_text() == "hours"
    assert f"resuming the unfinished run in {folder}" in caplog.text
    assert len(json.loads((folder / "versions.json").read_text())["resumed"]) == 1


def test_a_run_is_gone_on_with_where_its_relative_paths_are(tmp_path, monkeypatch, caplog):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.chdir(first)
    folder = interrupted(tmp_path, {"checkpoints/step.pt": "hours"})
    monkeypatch.chdir(second)
    with pytest.raises(
        ConfigError, match=f"began in {first}; its relative paths start there, so run it from there, or"
    ):
        make(tmp_path, overwrite=True).__enter__()
    assert (folder / "checkpoints" / "step.pt").is_file()
    first.rename(tmp_path / "renamed")  # there is no other place any more
    with make(tmp_path):
        pass
    assert f"the run began in {first}, which is not there" in caplog.text


def test_a_job_is_known_again_in_a_sweep_that_was_moved(tmp_path):
    def values(sweep: Path) -> dict:
        study = {"pruning": {"study": str(sweep / "study.db")}}
        return {"run": {"dir": str(sweep / "0"), "sweep": str(sweep)}, "trainer": {"callbacks": study}}

    before, after = tmp_path / "before", tmp_path / "after"
    with pytest.raises(KeyboardInterrupt), RunFolder(before / "0", values(before), {}):
        raise KeyboardInterrupt
    (before / "sweep.json").write_text("{}")
    assert holds_run_of(before / "0", values(before))
    before.rename(after)
    assert holds_run_of(after / "0", values(after))
    assert recorded_config(after / "0") == values(after)
    (after / "0").rename(tmp_path / "alone")  # the study stays where it is
    assert recorded_config(tmp_path / "alone")["run"] == {"dir": str(tmp_path / "alone"), "sweep": str(before)}


@pytest.mark.parametrize("lost", ["log.txt", "status.json", "versions.json"])
def test_a_run_that_was_killed_and_lost_a_file_goes_on(tmp_path, lost):
    folder = interrupted(tmp_path, {})
    (folder / "status.json").write_text(json.dumps({"state": "running", "seconds": 10.0}))
    os.utime(folder / "status.json", (1000, 1000))
    (folder / lost).unlink()
    with make(tmp_path, resuming=True):
        pass
    assert status(tmp_path)["seconds"] < 15 or lost == "versions.json"
    assert read_state(folder) == "done"
    assert len(json.loads((folder / "versions.json").read_text())["resumed"]) == 1


def test_a_run_that_cannot_begin_lets_go_of_its_folder(tmp_path):
    (tmp_path / "out" / "log.txt").mkdir(parents=True)
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(IsADirectoryError) as error:
        make(tmp_path).__enter__()
    assert not getattr(error.value, "__notes__", [])  # there is nothing to go on with
    assert logging.getLogger().handlers == handlers
    assert status(tmp_path)["state"] == "failed"
    (tmp_path / "out" / "log.txt").rmdir()
    with make(tmp_path):
        pass


def test_attempts_add_up_and_each_has_its_versions(tmp_path, monkeypatch):
    def attempt(day: str, seconds: float, resuming: bool) -> RunFolder:
        times = iter([0.0, 0.0])  # when it is made, and when it is entered
        monkeypatch.setattr(run_folder, "time", SimpleNamespace(monotonic=lambda: next(times, seconds)))
        monkeypatch.setattr(run_folder, "_now", lambda: f"{day}T10:00:00+00:00")
        return make(tmp_path, resuming=resuming)

    with pytest.raises(KeyboardInterrupt), attempt("2026-03-01", 60.0, False):
        raise KeyboardInterrupt
    assert status(tmp_path)["seconds"] == 60
    with attempt("2026-03-02", 30.0, True):
        pass
    end = status(tmp_path)
    assert (end["seconds"], end["started"][:10], end["finished"][:10]) == (90, "2026-03-01", "2026-03-02")
    found = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert found["overrides"] == ["seed=3", "query=it is"]
    [second] = found["resumed"]
    assert second["started"] == "2026-03-02T10:00:00+00:00"
    assert second["packages"] == found["packages"]


def test_an_attempt_that_was_killed_counts_to_its_last_word(tmp_path):
    folder = tmp_path / "out"
    make(tmp_path).__enter__().__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    (folder / "status.json").write_text(json.dumps({"state": "running", "started": "then", "seconds": 10.0}))
    os.utime(folder / "status.json", (1000, 1000))
    os.utime(folder / "log.txt", (1500, 1500))
    with make(tmp_path, resuming=True):
        pass
    assert 510 <= status(tmp_path)["seconds"] < 515
    assert status(tmp_path)["started"] == "then"


def test_a_full_disk_at_the_end_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    run = make(tmp_path).__enter__()
    monkeypatch.setattr(run_folder, "write_text", full)
    error = UserError("first")
    run.__exit__(UserError, error, None)
    assert "UserError: first" in (tmp_path / "out" / "log.txt").read_text()


def test_a_full_disk_at_the_start_is_an_error(tmp_path, monkeypatch):
    write = run_folder.write_text

    def full(path, text):
        if path.name == "config.yaml":
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    monkeypatch.setattr(run_folder, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path).__enter__()
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["error"].startswith("the disk is full")


def test_a_log_on_a_full_disk_says_nothing(capsys):
    log = run_folder._LogFile("/dev/full", encoding="utf-8")
    log.handle(logging.makeLogRecord({"msg": "loading"}))
    log.close()
    assert capsys.readouterr().err == ""
    log = run_folder._LogFile("/dev/null", encoding="utf-8")
    log.handle(logging.makeLogRecord({"msg": "%d", "args": ("a word",)}))  # a mistake of our own is shown
    log.close()
    assert "--- Logging error ---" in capsys.readouterr().err


def test_states_that_cannot_be_read(tmp_path):
    assert read_state(tmp_path) is None
    (tmp_path / "status.json").write_text("{")
    assert read_state(tmp_path) is None


def test_the_commits_of_embfit_and_of_the_working_directory(tmp_path, monkeypatch):
    own = versions()["embfit_git"]
    monkeypatch.chdir(tmp_path)
    assert versions()["directory_git"] is None
    assert versions()["embfit_git"] == own
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert versions()["directory_git"]["clean"] is True
    (tmp_path / "new").touch()
    state = versions()["directory_git"]
    assert (len(state["commit"]), state["clean"]) == (40, False)
    assert versions()["embfit_git"] == own


def test_a_repository_around_an_installed_embfit_is_not_embfits(tmp_path, monkeypatch):
    package = tmp_path / "env" / "embfit"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(
        ["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "a user's"], check=True
    )
    monkeypatch.setattr("embfit.version.__file__", str(package / "version.py"))
    told = SimpleNamespace(read_text=lambda name: '{"url": "https://host/embfit", "vcs_info": {"commit_id": "c0ffee"}}')
    monkeypatch.setattr("embfit.run.versions.distribution", lambda name: told)
    assert versions()["embfit_git"] == {"commit": "c0ffee", "clean": True}  # as pip wrote down
    monkeypatch.setattr("embfit.run.versions.distribution", lambda name: SimpleNamespace(read_text=lambda name: None))
    assert versions()["embfit_git"] is None
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *identity, "commit", "-q", "-m", "a checkout"], check=True)
    assert versions()["embfit_git"]["clean"] is True


def test_a_run_that_is_killed_while_it_writes_its_record_is_begun_anew(tmp_path, monkeypatch):
    config = {"task": {"_target_": "embfit.task.mine.mine"}, "run": {"dir": str(tmp_path)}, "seed": 3}

    def killed(path: Path, text: str) -> None:
        if path.name == "versions.json":
            raise MemoryError
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr("embfit.run.folder.write_text", killed)
        with pytest.raises(MemoryError), RunFolder(tmp_path, config, {}):
            pass
    assert not holds_run_of(tmp_path, config)
    with RunFolder(tmp_path, config, {}) as run:
        assert not run.resuming
    assert read_record(tmp_path).config == config
    assert holds_run_of(tmp_path, config)


def test_a_folder_that_cannot_be_made_is_named_with_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(
        ConfigError, match=r"run\.dir=.*/file/run cannot be made \(Not a directory\); name a folder"
    )
    with refused, RunFolder(tmp_path / "file" / "run", {}, {}):
        pass
