"""Templates that teams share, and examples that requests show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embfit.errors import ConfigError, UserError
from embfit.style import FewShot, StyleExample, Template
from embfit.style.template import find_template, read_template
from tests.conftest import make_collection


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


@pytest.mark.parametrize("name", ["question", "keywords", "claim", "title", "error", "conversational", "completion"])
def test_embfits_own_templates_are_whole(name: str) -> None:
    text = read_template(f"{name}.md").text
    assert ("{count}" in text) == (name != "completion")
    assert ('{"queries": ["...", "..."]}' in text) == (name != "completion")


def test_a_teams_folder_brings_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "team" / "style"
    folder.mkdir(parents=True)
    (folder / "legal.md").write_text("{document} asks {count}")
    with pytest.raises(UserError, match=r"there is no template legal\.md"):
        find_template("legal.md")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(tmp_path / "team"))
    assert find_template("legal.md") == folder / "legal.md"
    assert read_template(str(folder / "legal.md")).fill({"document": "D", "count": "3"}) == "D asks 3"
    (folder / "claim.md").write_text("{document}")
    with pytest.raises(UserError, match=r"claim\.md is there several times"):
        find_template("claim.md")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n{documnet} {document}", r"t\.md:2: there is no placeholder \{documnet\}; did you mean 'document'\?"),
        ("no placeholder", r"has no \{document\}"),
    ],
)
def test_a_template_that_cannot_be_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.md").write_text(text)
    with pytest.raises(UserError, match=said):
        read_template(str(tmp_path / "t.md"))
    with pytest.raises(UserError, match="is not there"):
        read_template(str(tmp_path / "none.md"))


def test_a_digest_is_of_the_text() -> None:
    assert Template("a {document}").digest == Template("a {document}").digest != Template("b {document}").digest


def test_examples_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    rows = [{"query": "a  b", "document": " ".join(["word"] * 200)}, {"query": "c", "document": "d", "style": "claim"}]
    file.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    collection = make_collection({}, {}, {})
    found = FewShot(file=str(file)).load(collection, 0)
    assert found == [StyleExample("a b", " ".join(["word"] * 100)), StyleExample("c", "d", "claim")]
    assert [example.query for example in FewShot().choose(found, "question", "x", 0)] == ["a b"]
    file.write_text('{"query": "a"}\n')
    with pytest.raises(UserError, match=r'examples\.jsonl:1: expected \{"query"'):
        FewShot(file=str(file)).load(collection, 0)
    with pytest.raises(UserError, match="is not there"):
        FewShot(file=str(tmp_path / "no")).load(collection, 0)


def test_examples_from_a_split_are_rotated() -> None:
    documents = {f"d{number}": f"text {number}" for number in range(30)}
    asked = {f"q{number}": f"query {number}" for number in range(30)}
    qrels = {"dev": {f"q{number}": {f"d{number}": 1} for number in range(30)}}
    collection = make_collection(documents, asked, qrels)
    shots = FewShot(split="dev", pool=10, count=3)
    pool = shots.load(collection, 0)
    assert len(pool) == 10
    assert pool == shots.load(collection, 0) != shots.load(collection, 1)
    assert all(example.query.replace("query", "text") == example.document for example in pool)
    assert all(example.query_row == example.document_row for example in pool)
    chosen = [tuple(example.query for example in shots.choose(pool, "claim", f"x{number}", 0)) for number in range(50)]
    assert {len(some) for some in chosen} == {3}
    assert {query for some in chosen for query in some} == {example.query for example in pool}
    fixed = FewShot(split="dev", pool=10, count=3, rotate=False)
    assert fixed.choose(pool, "claim", "x1", 0) == fixed.choose(pool, "claim", "x2", 0)
    with pytest.raises(ConfigError, match=r"generator\.examples\.split=test: small has dev"):
        FewShot(split="test").load(collection, 0)
    with pytest.raises(ValueError, match="file and split are both set"):
        FewShot(file="a", split="dev")
