"""Which folder the advice about a full disk names."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from embfit.errors import UserError
from embfit.run.full_disk import advice_on_full_disk, configured_folders, full_disk

GIGABYTE = 2**30


def of(path: Path) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_the_folders_of_a_configuration() -> None:
    values = {"run": {"dir": "a"}, "store": {"dir": "~/b"}, "bundle": {"dir": "c", "name": "d"}, "seed": 0}
    values["cluster"] = {"dir": None}
    folders = {"run.dir": Path("a"), "store.dir": Path("b").home() / "b", "bundle.dir": Path("c")}
    assert configured_folders(values) == folders


def test_the_folder_that_holds_the_file(tmp_path: Path) -> None:
    folders = {"run.dir": tmp_path, "store.dir": tmp_path / "store", "bundle.dir": tmp_path / "link"}
    (tmp_path / "bundles").mkdir()
    folders["bundle.dir"].symlink_to("bundles")
    for file, key in (
        ("model.bin", "run.dir"),
        ("store/a/b", "store.dir"),
        ("bundles/docs/.2-unfinished", "bundle.dir"),
    ):
        said = f"the disk is full: {tmp_path / file}; free some space, or put {key} on another disk"
        assert full_disk(of(tmp_path / file), folders) == said
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "store" / "missing" / "link").symlink_to("1")
    assert full_disk(caught.value, folders).startswith(f"the disk is full: {tmp_path / 'store/missing/link'}; free")
    elsewhere = tmp_path.parent / "cache"
    assert full_disk(of(elsewhere), folders) == f"the disk is full: {elsewhere}; free some space there"


@pytest.mark.parametrize(
    ("free", "named"),
    [
        ({"a": 0, "b": 2 * GIGABYTE}, "store.dir"),
        ({"a": 2 * GIGABYTE, "b": 0}, "run.dir and bundle.dir"),
        ({"a": 0, "b": 0}, "run.dir, store.dir and bundle.dir"),
        ({"a": 2 * GIGABYTE, "b": 2 * GIGABYTE}, "run.dir, store.dir and bundle.dir"),  # a quota
    ],
)
def test_an_error_without_a_file_names_the_folders_on_disks_with_little_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: dict[str, int], named: str
) -> None:
    for disk in free:
        (tmp_path / disk).mkdir()
    usage = lambda path: SimpleNamespace(free=free[Path(path).relative_to(tmp_path).parts[0]])  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    folders = {
        "run.dir": tmp_path / "b",
        "store.dir": tmp_path / "a" / "new" / "er",
        "bundle.dir": tmp_path / "b" / "c",
    }
    said = f"the disk is full; free some space, or put {named} on another disk"
    assert full_disk(RuntimeError("database or disk is full"), folders) == said


def test_only_a_full_disk_is_replaced(tmp_path: Path) -> None:
    folders = {"run.dir": tmp_path}
    with pytest.raises(UserError) as caught, advice_on_full_disk(folders):
        raise of(tmp_path / "x")
    assert str(caught.value).endswith("; free some space, or put run.dir on another disk")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(PermissionError), advice_on_full_disk(folders):
        raise PermissionError(errno.EACCES, "no", "x")
