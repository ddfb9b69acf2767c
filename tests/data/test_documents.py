"""Folders of documents: what is read, what is left out with one line for each reason, and what a collection holds."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embfit.data import Documents
from embfit.data.document_files import Globs
from embfit.data.documents import _printable
from embfit.errors import ConfigError, UserError
from embfit.records import Collection
from embfit.store import Store
from tests.data.conftest import write_jsonl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three small files."""
    made = tmp_path / "guide"
    (made / "deep").mkdir(parents=True)
    (made / "a.md").write_text("# Install\n\nUse apt.\n\n## Later\n\nUpdate it.\n")
    (made / "deep" / "b.html").write_text("<title>Run</title><p>Start it.</p>")
    (made / "c.txt").write_text("Plain words.\n")
    return made


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Return the lines that were told at a level."""
    caplog.set_level("INFO")
    return lambda level: [record.getMessage() for record in caplog.records if record.levelname == level]


def rows(collection: Collection) -> list[tuple[Any, ...]]:
    columns = collection.corpus.select_columns(["title", "text", "source", "position"])[:]
    return list(zip(*columns.values(), strict=True))


def left_out(collection: Collection) -> dict[str, int]:
    return dict(collection.facts["files_left_out"])


def test_a_folder_becomes_a_collection_without_queries(folder: Path, store: Store, told: Any) -> None:
    collection = Documents(str(folder)).load(store)
    assert rows(collection) == [
        ("Install", "Use apt.", "a.md", "line 3"),
        ("Install > Later", "Update it.", "a.md", "line 7"),
        ("", "Plain words.", "c.txt", "line 1"),
        ("Run", "Start it.", "deep/b.html", "line 1"),
    ]
    assert [name.partition("#")[0] for name in collection.document_ids] == ["a.md", "a.md", "c.txt", "deep/b.html"]
    assert list(collection.document_texts([1])) == ["Install > Later Update it."]
    assert (collection.name, len(collection.queries), collection.qrels) == ("guide", 0, {})
    assert collection.facts["files_read"] == {"HTML": 1, "Markdown": 1, "text": 1}
    assert (collection.facts["documents"], collection.facts["queries"], left_out(collection)) == (4, 0, {})
    assert told("INFO") == ["guide: files read: 1 HTML, 1 Markdown, 1 text", "guide: 4 documents, no queries"]


def test_what_is_in_the_store_is_found_and_told_again(folder: Path, store: Store, told: Any) -> None:
    first = Documents(str(folder)).load(store)
    before = told("INFO")
    again = Documents(str(folder)).load(store)
    assert told("INFO")[len(before) :] == before
    assert again.document_ids == first.document_ids
    (folder / "c.txt").write_text("Other words.\n")
    changed = Documents(str(folder)).load(store)
    assert len({*first.document_ids} - {*changed.document_ids}) == 1  # ids are those of texts


def test_ids_stay_when_text_is_added_before(folder: Path, store: Store) -> None:
    before = Documents(str(folder)).load(store).document_ids
    (folder / "a.md").write_text("# Install\n\nFirst of all.\n\n## New\n\nText.\n\n## Later\n\nUpdate it.\n")
    after = Documents(str(folder)).load(store).document_ids
    assert before[1] in after
    assert before[0] not in after


def test_whole_documents_have_their_paths_as_ids(folder: Path, store: Store) -> None:
    collection = Documents(str(folder), piece_tokens=None).load(store)
    assert collection.document_ids == ["a.md", "c.txt", "deep/b.html"]
    assert rows(collection)[0] == ("Install", "Use apt.\nLater\nUpdate it.", "a.md", "line 1")


def test_globs_choose_files(folder: Path, store: Store) -> None:
    (folder / "notes.log").write_text("A log.")
    assert {row[2] for row in rows(Documents(str(folder), exclude=["deep"]).load(store))} == {"a.md", "c.txt"}
    chosen = Documents(str(folder), include=["*.log", "deep/**"]).load(store)
    assert {row[2] for row in rows(chosen)} == {"notes.log", "deep/b.html"}
    assert left_out(chosen) == {"excluded": 2}
    assert left_out(Documents(str(folder)).load(store)) == {"other_formats": 1}
    with pytest.raises(UserError, match=r"no file of .* matches data\.include=\['\*\.mdx'\]"):
        Documents(str(folder), include=["*.mdx"]).load(store)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.md", ["a.md", "x/a.md"], ["a.mdx", "a.md.txt"]),
        ("x/*.md", ["x/a.md"], ["x/y/a.md", "z/x/a.md"]),
        ("x/**/*.md", ["x/a.md", "x/y/z/a.md"], ["a.md"]),
        ("build/", ["build/a.md", "x/build/a.md"], ["building/a.md"]),
        ("a?[0-9].txt", ["ab1.txt"], ["ab.txt", "abc.txt"]),
        ("[!a].txt", ["b.txt"], ["a.txt"]),
    ],
)
def test_globs(pattern: str, matching: list[str], others: list[str]) -> None:
    globs = Globs([pattern])
    assert [name for name in [*matching, *others] if globs.match(name)] == matching


def test_bad_files_are_one_line_each_and_the_rest_goes_on(folder: Path, store: Store, told: Any) -> None:
    (folder / "garbage.md").write_bytes(b"\x7fELF\0\1\2")
    (folder / "latin.md").write_bytes("# Caf\u00e9\n\nOpen.".encode("latin1"))
    with (folder / "huge.txt").open("wb") as file:
        file.truncate(2_000_000_000)  # sparse
    (folder / "empty.md").touch()
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("# Secret\n\nWords.")
    (folder / "broken.md").symlink_to("nowhere.md")
    (folder / "deep" / "circle").symlink_to("..")
    (folder / "again.txt").symlink_to("c.txt")
    os.mkfifo(folder / "pipe.txt")
    collection = Documents(str(folder)).load(store)
    assert len(collection.corpus) == 4
    assert left_out(collection) == {
        "unreadable": 2,
        "too_large": 1,
        "binary": 1,
        "not_utf8": 1,
        "no_text": 1,
        "links_to_files_read_already": 2,
        "other_formats": 1,
        "hidden": 1,
    }
    assert told("WARNING") == [
        "guide: files left out because they cannot be read: 2 (pipe.txt (no file, but a pipe, socket or device), "
        "broken.md (No such file or directory))",
        "guide: files left out because they exceed data.max_megabytes=50: 1 (huge.txt (2,000 MB)); split them, or "
        "raise the limit",
        "guide: files left out because they contain bytes that are not text: 1 (garbage.md); leave them out with "
        "data.exclude",
        "guide: files left out because they are not UTF-8: 1 (latin.md (byte 0xe9 in line 1)); convert them, or name "
        "their encoding: data.encoding=latin1",
        "guide: files left out because they contain no text: 1 (empty.md)",
    ]
    named = Documents(str(folder), encoding="latin1").load(store)
    assert ("Caf\u00e9", "Open.", "latin.md", "line 3") in rows(named)


def test_no_permission(folder: Path, store: Store, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, scanned = Path.open, os.scandir

    def refuse(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == "c.txt":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **more)

    def hide(path: Path) -> Any:
        if path.name == "deep":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scanned(path)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("embfit.data.document_files.os.scandir", hide)
    collection = Documents(str(folder)).load(store)
    assert {row[2] for row in rows(collection)} == {"a.md"}
    assert told("WARNING") == [
        "guide: files left out because they cannot be read: 2 (c.txt (Permission denied), deep (Permission denied))"
    ]


def test_a_file_that_vanishes_while_files_are_read(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def vanish(path: Path) -> bytes:
        (folder / "c.txt").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", vanish)
    assert {row[2] for row in rows(Documents(str(folder)).load(store))} == {"a.md", "deep/b.html"}


def test_a_file_that_never_stays_the_same(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"another content")
    with pytest.raises(UserError, match=r"guide/a\.md changes while it is read; read a copy of the folder$"):
        Documents(str(folder)).load(store)


def test_a_reader_that_is_not_installed(folder: Path, store: Store, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "manual.pdf").write_bytes(b"%PDF")
    monkeypatch.setattr(
        "embfit.data.formats.readers.importlib.util.find_spec", lambda name: name == "markdown_it" or None
    )
    assert len(Documents(str(folder)).load(store).corpus) == 4
    assert told("WARNING") == [
        "guide: files left out because they need a reader that is not installed: 1 (manual.pdf (PDF)); "
        "pip install 'embfit[documents]'"
    ]


def test_nothing_to_read(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"data\.path=DIR"):
        Documents().load(store)
    with pytest.raises(UserError, match=r"nowhere: there is no such file or folder \(data\.path\)$"):
        Documents(str(tmp_path / "nowhere")).load(store)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none holds no documents that can be read: it is empty$"):
        Documents(str(tmp_path / "none")).load(store)
    (tmp_path / "none" / "empty.md").touch()
    with pytest.raises(UserError, match=r"that can be read \(files left out .* contain no text: 1 \(empty\.md\)\)$"):
        Documents(str(tmp_path / "none")).load(store)
    (tmp_path / "same").mkdir()
    for number in range(6):
        (tmp_path / "same" / f"{number}.md").write_text("The harbor is closed in winter.\n")
    left_out = "paragraphs left out because most files have them (data.boilerplate): 6"
    with pytest.raises(UserError, match=f"no text is left of .*same: files read: 6 Markdown . {re.escape(left_out)}$"):
        Documents(str(tmp_path / "same")).load(store)
    with pytest.raises(ConfigError, match="there is no encoding 'klingon'"):
        Documents("x", encoding="klingon")


def test_boilerplate_and_copies(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()  # noqa: SIM905
    for number, word in enumerate(words):
        page = f"# Page {word}\n\nCopyright 20{number:02} by us.\n\nThe {word} is described here.\n"
        (folder / f"{number}.md").write_text(page)
    (folder / "copy.md").write_text("# Page alpha\n\nThe alpha is described here.\n")
    long = " ".join(f"word{at}" for at in range(60))
    (folder / "long.txt").write_text(f"{long}\n")
    (folder / "near.txt").write_text(f"{long} more\n")
    (folder / "nav.html").write_text("<nav>Home</nav><p>Body.</p>")
    collection = Documents(str(folder)).load(store)
    assert [row[1] for row in rows(collection)] == [
        *(f"The {word} is described here." for word in words),
        long,
        "Body.",
    ]
    facts = collection.facts
    assert (facts["boilerplate_left_out"], facts["asides_left_out"]) == (10, 1)
    assert (facts["copies_merged"], facts["near_copies_merged"]) == (1, 1)
    kept = Documents(str(folder), boilerplate=None, near_copies=None).load(store)
    assert (kept.facts["boilerplate_left_out"], kept.facts["near_copies_merged"]) == (0, 0)
    assert len(kept.corpus) == 10 + 1 + 2 + 1


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_table_of_texts(tmp_path: Path, store: Store, suffix: str) -> None:
    long = "\n\n".join(f"Paragraph {at} has a few words." for at in range(12))
    records = [{"_id": "x", "title": "Head", "text": "Short."}, {"_id": "y", "title": "", "text": long}]
    path = tmp_path / f"texts.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, records)
    else:
        quoted = "".join(f'{row["_id"]},{row["title"]},"{row["text"]}"\n' for row in records)
        path.write_text(f"_id,title,text\n{quoted}")
    collection = Documents(str(path), piece_tokens=64, near_copies=None).load(store)
    assert rows(collection)[0] == ("Head", "Short.", f"texts.{suffix}", "line 1" if suffix == "jsonl" else "line 2")
    assert collection.document_ids[0] == "x"
    assert len(collection.corpus) == 3
    assert all(name.startswith("y#") for name in collection.document_ids[1:])
    assert Documents(str(path), piece_tokens=None).load(store).document_ids == ["x", "y"]


def test_ids_of_a_table_are_unique(tmp_path: Path, store: Store) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"_id": "x", "text": "one"}, {"_id": "x", "text": "two"}])
    with pytest.raises(UserError, match=r'a\.jsonl, line 2: the id "x" is already used in a\.jsonl, line 1'):
        Documents(str(tmp_path / "a.jsonl")).load(store)


def test_names_that_are_no_ids() -> None:
    assert _printable("my guide/100%#1.md") == "my%20guide/100%25%231.md"
    assert _printable("caf\u00e9/\udce9.md") == "caf\u00e9/%E9.md"
