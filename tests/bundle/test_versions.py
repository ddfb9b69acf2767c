"""Numbers, pointers and claims of a bundle's versions."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from embfit.bundle import BundleVersions
from embfit.bundle.versions import VersionLease, bundle_names, split_version
from embfit.errors import ConfigError, UserError
from tests.bundle.conftest import copy_version


def test_versions_and_pointers(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    versions.point({"previous": 1})
    versions.point({"champion": 2})
    assert versions.numbers() == [1, 2]
    assert versions.pointers() == {"champion": 2, "previous": 1}
    assert versions.path() == versions.folder / "2"
    assert versions.path("previous") == versions.path(1) == versions.path("1")
    assert (versions.folder / "champion" / "manifest.json").is_file()  # a link that other programs can follow
    versions.point({"previous": None})
    assert versions.pointers() == {"champion": 2}
    assert bundle_names(versions.dir) == ["docs"]


def test_a_number_is_given_once(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    shutil.rmtree(versions.folder / "2")
    copy_version(versions, 3)
    (versions.folder / ".last-version").unlink()  # as in a copy without hidden files
    copy_version(versions, 4)


def test_the_clock_decides_nothing(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    copy_version(versions, 2)
    assert versions.numbers() == [1, 2]


def test_a_failed_version_leaves_no_trace_but_its_number(versions: BundleVersions) -> None:
    def fail() -> None:
        with versions.publishing() as (number, folder):
            assert number == 2
            (folder / "half").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert versions.numbers() == [1]
    assert not list(versions.folder.glob(".*-unfinished"))
    copy_version(versions, 3)


def test_what_a_killed_process_left_is_removed(versions: BundleVersions) -> None:
    for name in (".2-unfinished", ".1-removed"):
        (versions.folder / name).mkdir()
        (versions.folder / name / "half").write_text("half")
    copy_version(versions, 2)
    assert not [path.name for path in versions.folder.glob(".*") if path.is_dir()]


def test_published_files_are_read_only(versions: BundleVersions) -> None:
    files = [path for path in versions.path(1).rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}


def test_two_that_publish_get_a_number_each(versions: BundleVersions) -> None:
    threads = [threading.Thread(target=lambda: _empty_version(versions)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in versions.folder.iterdir() if path.name.isdigit()) == list("12345")


def _empty_version(versions: BundleVersions) -> None:
    with versions.publishing():
        pass


def test_an_open_version_is_not_removed(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    lease = VersionLease(versions.path(1))
    other = VersionLease(versions.path(1))  # readers do not disturb each other
    with versions.changing():
        assert not versions.remove(1)
        lease.release()
        assert not versions.remove(1)
        other.release()
        assert versions.remove(1)
    assert versions.numbers() == [2]
    with pytest.raises(UserError, match="1 is not a version of a bundle"):
        VersionLease(versions.folder / "1")


@pytest.mark.parametrize(
    ("name", "which", "told"),
    [
        ("dosc", "champion", "has no bundle 'dosc'; did you mean 'docs'.; make its first version with task=index"),
        ("docs", "7", "docs@7: there is no version 7; .*/docs has 1"),
        ("docs", "best", "docs@best: name a version by its number, or champion, challenger, previous"),
        ("docs", "previous", "docs has no previous; it has versions 1: embfit bundle promote docs@1"),
    ],
)
def test_what_is_not_there(versions: BundleVersions, name: str, which: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        BundleVersions(versions.dir, name).path(which)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", ".."])
def test_names_that_are_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"bundle\.name="):
        BundleVersions(tmp_path, name)


@pytest.mark.parametrize(
    ("given", "folder", "which"),
    [
        ("bundles/docs", "bundles/docs", "champion"),
        ("bundles/docs@3", "bundles/docs", "3"),
        ("bundles/docs@", "bundles/docs", "champion"),
        ("/home/me@work/docs@previous", "/home/me@work/docs", "previous"),
        ("/home/me@work/docs", "/home/me@work/docs", "champion"),
        (".", ".", "champion"),
    ],
)
def test_a_version_is_named_behind_the_folder(given: str, folder: str, which: str) -> None:
    assert split_version(given) == (Path(folder), which)
