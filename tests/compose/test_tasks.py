import sys
from pathlib import Path

import pytest

from embfit.compose.command_line import parse
from embfit.compose.search_path import house as embfits
from embfit.compose.targets import MissingTargetError
from embfit.compose.tasks import TaskDeclaration, declaration, free_text_keys

COMPLAIN = """
import heavy_as_lead
from embfit.compose.tasks import task

@task(free_text=("complaint", "task.tone"), outputs=(*heavy_as_lead.OUTPUTS, "letter.txt"))
def complain(complaint, tone):
    pass
"""


def test_what_embfits_tasks_declare():
    assert declaration("embfit.task.search.search") == TaskDeclaration(free_text=("query",), spreads=True)
    finetune, mine = declaration("embfit.task.finetune.finetune"), declaration("embfit.task.mine.mine")
    assert (finetune.trains, mine.trains) == (True, False)
    assert declaration("embfit.task.refresh.refresh").trains
    assert not declaration("embfit.task.quantize.quantize").trains
    assert "negatives.jsonl" in mine.outputs
    assert set(finetune.costly) == {"checkpoints/step.pt", "checkpoints/*/step.pt", "training.json", "training-*.json"}
    assert declaration("os.getcwd") == TaskDeclaration()
    with pytest.raises(MissingTargetError):
        declaration("embfit.task.search.serach")


def test_free_text_is_read_without_importing_a_task(tmp_path, monkeypatch):
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "letters.py").write_text(COMPLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, target in {"a": "letters.complain", "b": "letters.gone", "c": "nowhere.at_all", "d": "3"}.items():
        (tmp_path / "conf" / "task" / f"{name}.yaml").write_text(f"# When.\n_target_: {target}\n_partial_: true\n")
    (tmp_path / "conf" / "task" / "e.yaml").write_text("# nothing\n")
    assert free_text_keys([tmp_path / "conf", tmp_path / "no folder"]) == {"complaint", "task.tone"}
    assert "letters" not in sys.modules
    assert free_text_keys([embfits().folder]) == {"query"}


def test_a_packs_task_takes_text_as_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "letters.py").write_text(COMPLAIN)
    (tmp_path / "conf" / "task" / "a.yaml").write_text("_target_: letters.complain\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    typed = ["task.tone=sharp, not rude", "loss.dims=[1,2]"]
    assert parse(typed).overrides == typed
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(tmp_path / "conf"))
    assert parse(typed).overrides == ["task.tone='sharp, not rude'", "loss.dims=[1,2]"]
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(Path("nowhere")))  # which the loader complains about
    assert parse(typed).overrides == typed
