"""Documents without queries: what can be done with them, and one line for what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from embfit.app import main


@pytest.fixture
def documents(command: list[str], texts: list[str], tmp_path: Path) -> list[str]:
    """The overrides of a tiny model and a folder of documents."""
    folder = tmp_path / "guide"
    folder.mkdir()
    for row, text in enumerate(texts):
        (folder / f"{row}.md").write_text(f"# Page {row}\n\n{text}\n")
    others = [part for part in command if not part.startswith("data")]
    return [*others, "data=documents", f"data.path={folder}", "data.near_copies=null"]


def test_documents_alone_can_be_searched(documents: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["task=search", "query=kidneys filter the blood", "task.documents=2", "run.dir=run"]
    assert main([*documents, *asked]) == 0
    shown = capsys.readouterr().out
    assert ".md#" in shown
    assert "Page" in shown


@pytest.mark.parametrize("task", ["finetune", "assess", "evaluate"])
def test_what_needs_queries_says_so_in_one_line(
    documents: list[str], capsys: pytest.CaptureFixture[str], task: str
) -> None:
    assert main([*documents, f"task={task}", "run.dir=run"]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "no queries, so" in line]
    assert said.endswith(
        "guide has documents and no queries, so there is nothing to measure or to train on; "
        "task=search searches it, and data=pairs data.path=FILE data.corpus=DIR adds queries to it"
    )
