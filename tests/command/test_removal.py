"""`embfit runs clean` and `embfit store prune`: nothing is removed that was not listed, asked for and idle."""

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from embfit.app import main
from embfit.command.store import chosen_entries
from embfit.store import DAY, Store, StoredEntry, folder_bytes, remove_entry, stored_entries
from tests.command.test_runs import make


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs: old and done, old and failed, and one that is done today."""
    monkeypatch.chdir(tmp_path)
    for name, state, started in (("a", "done", "2020-01-01"), ("b", "failed", "2020-01-02"), ("c", "done", None)):
        folder = make(Path("outputs") / name, 1e-5, [0.5] * 20)
        status = json.loads((folder / "status.json").read_text())
        status |= {"state": state, **({"started": f"{started}T10:00:00+00:00"} if started else {})}
        (folder / "status.json").write_text(json.dumps(status))
    return lambda: sorted(path.name for path in Path("outputs").iterdir())


def test_runs_are_removed_once_they_were_listed(runs, capsys):
    assert main(["runs", "clean"]) == 2
    assert "--older-than DAYS, --unfinished, or both" in capsys.readouterr().err
    assert main(["runs", "clean", "--older-than", "30"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["outputs/a", "outputs/b"]
    assert last.startswith("2 runs, ")
    assert last.endswith("nothing was removed: --yes removes them")
    assert runs() == ["a", "b", "c"]
    assert main(["runs", "clean", "--older-than", "30", "--unfinished", "--yes"]) == 0
    assert runs() == ["a", "c"]


def test_a_run_at_work_stays(runs, capsys):
    with FileLock(Path("outputs/b/.lock")):
        assert main(["runs", "clean", "--unfinished", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("removed 0; 1 in use were left\n")
    assert runs() == ["a", "b", "c"]


def entry(name: str, gigabytes: float, days: float, finished: bool = True) -> StoredEntry:
    return StoredEntry(Path("store/kind") / name, int(gigabytes * 1e9), -days * DAY, finished)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((None, None, False), []),
        ((10, None, False), ["old", "left"]),
        ((None, None, True), ["left"]),
        ((None, 2.5, False), ["old", "left"]),
        ((None, 3.0, True), ["left"]),
        ((None, 2.0, True), ["left", "old"]),
        ((None, 0.5, False), ["old", "left", "newer", "new"]),
    ],
)
def test_what_was_not_used_for_longest_goes_first(conditions, expected):
    entries = [entry("old", 1, 30), entry("left", 1, 20, finished=False), entry("newer", 1, 2), entry("new", 1, 1)]
    assert [one.path.name for one in chosen_entries(entries, 0.0, *conditions)] == expected


def test_the_store_is_pruned_by_last_use(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = Store("outputs/store")
    old, found = (
        store.entry("words", {"a": row}, lambda folder: (folder / "x").write_bytes(b"0" * 1000), version=1)
        for row in range(2)
    )
    for folder in (old, found):
        os.utime(folder / "key.json", (0, 0))
    Store("outputs/store").entry("words", {"a": 1}, lambda folder: None, version=1)  # used today
    assert [one.path for one in stored_entries(Path("outputs/store").absolute())] == [old, found]
    assert main(["store", "list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][1][:2] == ["words", "2"]
    assert main(["store", "prune", "--older-than", "7"]) == 0
    assert old.is_dir()
    assert main(["store", "prune", "--older-than", "7", "--yes"]) == 0
    assert (old.is_dir(), found.is_dir()) == (False, True)
    assert main(["store", "prune"]) == 2
    assert main(["store", "prune", str(tmp_path), "--older-than", "7", "--yes"]) == 1
    assert "is not a store: it has no CACHEDIR.TAG" in capsys.readouterr().err


def test_what_is_used_after_it_was_listed_stays(tmp_path):
    store = Store(tmp_path)
    path = store.entry("words", {"a": 1}, lambda folder: (folder / "x").write_bytes(b"0" * 1000), version=1)
    os.utime(path / "key.json", (0, 0))
    [listed] = stored_entries(tmp_path)
    Store(tmp_path).entry("words", {"a": 1}, lambda folder: None, version=1)  # a run finds it again
    assert not remove_entry(listed)
    assert path.is_dir()
    [listed] = stored_entries(tmp_path)
    assert remove_entry(listed)
    assert not path.is_dir()
    assert remove_entry(listed)  # as when two commands remove the same entry


def test_the_size_of_a_folder_leaves_out_links(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a").write_bytes(b"0" * 7)
    (tmp_path / "b").symlink_to(tmp_path / "inside" / "a")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert folder_bytes(tmp_path) == 7
