import json
from pathlib import Path

import pytest
import yaml

from embfit.compose.command_line import quoted
from embfit.compose.value_origins import Origins
from embfit.errors import ConfigError
from embfit.run.resume import read_run, resume_folder


@pytest.fixture
def unfinished(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"task": {"_target_": "embfit.task.mine.mine"}, "run": {"dir": "old"}, "resume": None, "seed": 1}
    config["logger"] = {"csv": {"save_dir": "old", "name": "older"}, "list": ["old/a", "b"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "provenance.json").write_text(json.dumps(Origins({"seed": "command line"}).record(config)))
    (folder / "status.json").write_text(json.dumps({"state": "interrupted"}))
    return folder


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ([], None),
        (["resume=null"], None),
        (["a=1"], None),
        (["resume=out/run"], Path("out/run")),
        (["task=mine", "resume='out/a b'"], Path("out/a b")),
        (["+resume=out"], Path("out")),
        (["++resume=out", "++task=mine"], Path("out")),
        (["resume=" + quoted("it's")], Path("it's")),
        (["resume='it's'"], Path("'it's'")),
        (["resume=out (1)/é,b"], Path("out (1)/é,b")),
    ],
)
def test_the_folder_that_a_command_line_names(overrides, folder):
    assert resume_folder(overrides) == folder


def test_nothing_else_can_be_asked_for():
    with pytest.raises(ConfigError, match="resume=x continues under that run's own configuration; leave out seed=1"):
        resume_folder(["resume=x", "seed=1", "task=mine"])


def test_a_run_is_read_with_values_that_follow_its_folder(unfinished):
    values, origins = read_run(unfinished, ["task=mine"])
    assert values["run"]["dir"] == values["resume"] == str(unfinished)
    assert values["logger"] == {
        "csv": {"save_dir": str(unfinished), "name": "older"},
        "list": [f"{unfinished}/a", "b"],
    }
    assert values["seed"] == 1
    assert origins.find("seed") == "command line"


def test_folders_that_cannot_be_gone_on_with(unfinished, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere is not the folder of a run: there is no nowhere/config\.yaml"):
        read_run(Path("nowhere"), [])
    with pytest.raises(ConfigError, match=r"is a run of embfit\.task\.mine\.mine, not task=finetune"):
        read_run(unfinished, ["task=finetune"])
    (unfinished / "status.json").write_text(json.dumps({"state": "done"}))
    with pytest.raises(ConfigError, match="is finished already; for another run leave resume out"):
        read_run(unfinished, [])
    (unfinished / "config.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match="is not the folder of a run: 'run'"):
        read_run(unfinished, [])
