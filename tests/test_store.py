from __future__ import annotations

import errno
import multiprocessing
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from embfit.atomic_files import replacing, replacing_folder, write_text
from embfit.store import Store, digest


def put(text: str):
    def build(folder: Path) -> None:
        (folder / "value.txt").write_text(text)

    return build


def test_a_full_disk_is_told_by_what_was_written(tmp_path: Path) -> None:
    said = re.escape(os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=f"{said}: '{tmp_path}/a.txt'"), replacing(tmp_path / "a.txt"):
        np.arange(100_000).tofile("/dev/full")
    with pytest.raises(OSError, match=f"{said}: '{tmp_path}/model'"), replacing_folder(tmp_path / "model"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    with pytest.raises(OSError, match=f"{said}: 'b.txt'"), replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "b.txt")
    with pytest.raises(OSError, match=f"{said}: '{tmp_path}/store'"):
        Store(tmp_path / "store").entry("x", {}, lambda _: np.arange(100_000).tofile("/dev/full"), version=1)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    folder = first.entry("numbers", {"n": 1}, put("one"), version=1)
    assert second.entry("numbers", {"n": 1}, put("another"), version=1) == folder
    assert (folder / "value.txt").read_text() == "one"
    assert (first.built, first.reused) == (["numbers"], [])
    assert (second.built, second.reused) == ([], ["numbers"])


def test_what_a_run_made_itself_is_not_news(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(3):
        store.entry("numbers", {"n": 1}, put("one"), version=1)
    assert (store.built, store.reused) == (["numbers"], [])


def test_another_key_is_another_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = store.entry("numbers", {"n": 1}, put("one"), version=1)
    assert one != store.entry("numbers", {"n": 2}, put("two"), version=1)
    assert one != store.entry("numbers", {"n": 1}, put("one otherwise"), version=2)


def test_the_key_is_kept_for_people(tmp_path: Path) -> None:
    folder = Store(tmp_path).entry("numbers", {"n": 1}, put("one"), version=1)
    assert (folder / "key.json").read_text() == '{\n  "n": 1,\n  "version": 1\n}\n'


def test_the_digest_ignores_order_and_nothing_else() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_a_resumable_build_finds_what_it_had_left(tmp_path: Path) -> None:
    def count(folder: Path) -> None:
        before = sorted(path.name for path in folder.iterdir())
        (folder / f"{len(before)}.txt").write_text("part")
        if len(before) < 2:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path).entry("numbers", {"n": 1}, count, version=1, resumable=True)
    folder = Store(tmp_path).entry("numbers", {"n": 1}, count, version=1, resumable=True)
    assert sorted(path.name for path in folder.iterdir()) == ["0.txt", "1.txt", "2.txt", "key.json"]
    assert [path.name for path in (tmp_path / "numbers").iterdir() if path.is_dir()] == [folder.name]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise OSError(28, "No space left on device")

    store = Store(tmp_path)
    with pytest.raises(OSError, match="No space"):
        store.entry("numbers", {"n": 1}, fail, version=1)
    assert [path.name for path in (tmp_path / "numbers").iterdir() if path.is_dir()] == []
    assert (store.entry("numbers", {"n": 1}, put("one"), version=1) / "value.txt").read_text() == "one"


def test_a_disabled_store_computes_anew_each_time_it_is_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "unused", enabled=False)
    store.entry("numbers", {"n": 1}, put("one"), version=1)
    assert Store(tmp_path / "unused", enabled=False).entry("numbers", {"n": 1}, put("two"), version=1).is_dir()
    assert not (tmp_path / "unused").exists()


def _build_slowly(folder: Path) -> None:
    time.sleep(0.3)
    (folder / "value.txt").write_text("built")


def _job(folder: Path, counts: multiprocessing.Queue) -> None:
    store = Store(folder)
    store.entry("numbers", {"n": 1}, _build_slowly, version=1)
    counts.put(len(store.built))


def test_parallel_jobs_build_each_key_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    jobs = [context.Process(target=_job, args=(tmp_path, counts)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(20)
    assert sum(counts.get(timeout=5) for _ in jobs) == 1


def leave(store: Path, n: int, suffix: str, days: float) -> Path:
    """Make what a process that was killed some days ago left of a build."""
    folder = store / "numbers" / f"{digest({'n': n, 'version': 1})}.{suffix}"
    folder.mkdir(parents=True)
    (folder / "part.txt").write_text("part")
    os.utime(folder, (time.time() - days * 86400,) * 2)
    return folder


def parts(folder: Path) -> None:
    (folder / "parts.txt").write_text(" ".join(sorted(path.name for path in folder.iterdir())))


def test_what_a_killed_build_left_is_not_taken_for_an_entry(tmp_path: Path) -> None:
    leave(tmp_path, 1, "unfinished", days=0)
    folder = Store(tmp_path).entry("numbers", {"n": 1}, parts, version=1)
    assert (folder / "parts.txt").read_text() == ""


def test_what_was_killed_on_friday_goes_on_on_monday(tmp_path: Path) -> None:
    leave(tmp_path, 1, "resumable", days=3)
    Store(tmp_path).entry("numbers", {"n": 2}, put("two"), version=1)  # of the same kind
    folder = Store(tmp_path).entry("numbers", {"n": 1}, parts, version=1, resumable=True)
    assert (folder / "parts.txt").read_text() == "part.txt"


def test_even_the_oldest_is_gone_on_with(tmp_path: Path) -> None:
    leave(tmp_path, 1, "resumable", days=100)
    folder = Store(tmp_path).entry("numbers", {"n": 1}, parts, version=1, resumable=True)
    assert (folder / "parts.txt").read_text() == "part.txt"


@pytest.mark.parametrize(("suffix", "days"), [("unfinished", 2), ("resumable", 15)])
def test_what_nobody_builds_any_more_is_removed(tmp_path: Path, suffix: str, days: float) -> None:
    old, new = leave(tmp_path, 1, suffix, days), leave(tmp_path, 2, suffix, days=0.5)
    Store(tmp_path).entry("numbers", {"n": 3}, put("three"), version=1)
    assert (old.exists(), new.exists()) == (False, True)


def test_what_another_job_builds_is_left_alone_however_long_it_takes(tmp_path: Path) -> None:
    old = leave(tmp_path, 1, "unfinished", days=2)
    with FileLock(old.with_suffix(".lock")):  # which a build holds
        Store(tmp_path).entry("numbers", {"n": 2}, put("two"), version=1)
        assert old.exists()


def _add(folder: Path) -> None:
    with Store(folder).growing("counts", {"n": 1}, version=1) as entry:
        number = len(list(entry.glob("*.txt")))
        time.sleep(0.1)
        (entry / f"{number}.txt").touch()


def test_a_growing_result_is_one_jobs_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_add, args=(tmp_path,)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(20)
    store = Store(tmp_path)
    with store.growing("counts", {"n": 1}, version=1) as entry:
        assert sorted(path.name for path in entry.iterdir()) == ["0.txt", "1.txt", "2.txt", "3.txt", "key.json"]
    assert (store.built, store.reused) == ([], ["counts"])


def test_a_growing_result_of_another_version_is_another(tmp_path: Path) -> None:
    folders = []
    for version in (1, 1, 2):
        with Store(tmp_path).growing("counts", {"n": 1}, version=version) as entry:
            folders.append(entry)
    assert folders[0] == folders[1] != folders[2]


def test_write_text_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_when_the_block_ends_well_alone(tmp_path: Path) -> None:
    path = tmp_path / "step.pt"
    path.write_text("old")
    with suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    path = tmp_path / "step.pt"
    sync = lambda handle: synced.append(f"{Path(f'/proc/self/fd/{handle}').readlink()} {path.exists()}")  # noqa: E731
    monkeypatch.setattr(os, "fsync", sync)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert synced == [f"{temporary} False", f"{tmp_path} True"]


def test_a_folder_is_replaced_when_the_block_ends_well_alone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "model"
    for word in ("old", "new"):
        with replacing_folder(folder) as unfinished:
            (unfinished / "weights").mkdir()
            (unfinished / "weights" / "first").write_text(word)
    with suppress(KeyError), replacing_folder(folder) as unfinished:
        (unfinished / "weights").mkdir()
        raise KeyError
    assert (folder / "weights" / "first").read_text() == "new"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_is_back_when_another_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    with replacing_folder(folder) as unfinished:
        (unfinished / "weights").write_text("old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith("-unfinished"):
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no space left"), replacing_folder(folder) as unfinished:
        (unfinished / "weights").write_text("new")
    assert (folder / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_a_killed_process_had_moved_aside_is_back(tmp_path: Path) -> None:
    (tmp_path / ".model-old").mkdir()
    (tmp_path / ".model-old" / "weights").write_text("old")
    with suppress(KeyError), replacing_folder(tmp_path / "model"):
        raise KeyError
    assert (tmp_path / "model" / "weights").read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_are_readable_by_those_whom_the_umask_lets_read(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "text")
        with replacing_folder(tmp_path / "folder") as folder:
            save_file({"weight": torch.zeros(1)}, folder / "private")
            write_text(folder / "b", "text")
        entry = Store(tmp_path / "store").entry("kept", {"a": 1}, lambda folder: None, version=1)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "folder").iterdir()} == {mode}
    assert (entry / "key.json").stat().st_mode & 0o777 == mode


def test_a_store_is_marked_as_what_need_not_be_kept(tmp_path):
    Store(tmp_path / "store").entry("kept", {"a": 1}, lambda folder: None, version=1)
    tag = (tmp_path / "store" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
