"""The README and the guide of Python: commands compose, Python runs, and the site's links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from embfit.app import main
from embfit.model import CrossEncoder, Encoder, save_cross_encoder, save_encoder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Return the words after `embfit` of each command that the README shows, in blocks and within sentences."""
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(embfit [a-z]+ [^`\n]+)`", README)
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("embfit ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_readme_composes(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("DIR", "SRC", "FOLDER"):
        Path(name).mkdir()
    Path("FILE").write_text('{"query": "q", "positive": "p"}\n')
    typed = [word.replace("trainer=gpu", "trainer=auto") for word in words]  # there may be no GPU here
    if "-m" in typed:  # the first job of a sweep
        typed = [word.partition(",")[0] for word in typed if word != "-m"]
    assert main([*typed, "--explain"]) == 0, capsys.readouterr().err


def test_the_readme_shows_commands_of_every_task():
    assert {words[0] for words in commands()} == {
        "assess",
        "evaluate",
        "finetune",
        "generate",
        "index",
        "refresh",
        "search",
        "serve",
    }


def test_scripts_and_pictures_that_the_readme_names_are_there():
    named = re.findall(r"(?:\]\(|src=\"|srcset=\"|\./)((?:docs|scripts)/[^)\"#\s`]+|[A-Z]+\.md)", README)
    assert len(named) > 25
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.fixture
def folders(tiny_encoder: Encoder, tiny_ranker: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model where the pages look for one, and a reranker."""
    monkeypatch.chdir(tmp_path)
    save_encoder(tiny_encoder, tmp_path / "outputs/finetune/DATE/TIME/model")
    (tmp_path / "MODEL").symlink_to("outputs/finetune/DATE/TIME/model")
    save_cross_encoder(tiny_ranker, tmp_path / "RANKER")
    return tmp_path


PYTHON = [block for page in (README, GUIDE) for block in blocks(page, "python")]
SMALL = [block for block in PYTHON if "embfit.app" not in block]


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("block", SMALL, ids=range(len(SMALL)))
def test_the_python_that_is_shown_runs(block: str) -> None:
    exec(compile(block, "a page", "exec"), {"__name__": "page"})


def test_scores_are_those_that_the_guide_says(folders: Path) -> None:
    found: dict[str, object] = {}
    exec(next(block for block in SMALL if "scores =" in block), found)
    assert found["scores"].shape == (1, 2)
    assert abs(found["scores"]).max() <= 1.00001


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs/examples/first-run.ipynb").read_text(encoding="utf-8"))["cells"]
    shown: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), shown)
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1] == "addHandler"
    assert second.split()[1] in ("get_payload", "len")


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="pip install -e '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "python" / "index.html").is_file()
