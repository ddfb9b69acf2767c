"""Versions that one machine pushes into object storage and another one pulls."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest

from embfit.bundle import BundleVersions, open_bundle
from embfit.bundle.transfer import pull, push
from embfit.command import bundle as command
from embfit.errors import ConfigError, UserError
from embfit.object_storage import RemoteFolder
from tests.bundle.conftest import copy_version


@pytest.fixture
def address() -> str:
    """An empty folder of fsspec's file system in memory."""
    return f"memory://bucket-{uuid.uuid4().hex}/bundles"


@pytest.fixture
def there(tmp_path: Path) -> BundleVersions:
    """The same bundle on another machine, which has no version of it yet."""
    return BundleVersions(tmp_path / "there", "docs")


def test_what_is_pushed_is_what_is_pulled(versions: BundleVersions, there: BundleVersions, address: str) -> None:
    assert push(versions, address) == [1]
    assert push(versions, address) == []
    assert pull(there, address) == [1]
    assert pull(there, address) == []
    assert there.pointers() == {"champion": 1}
    assert there.manifest() == versions.manifest()
    with open_bundle(there.folder, "champion") as bundle:  # which holds its model to the published vectors
        assert bundle.label == "docs@1"
    assert {path.stat().st_mode & 0o777 for path in there.path().rglob("*") if path.is_file()} == {0o444}


def test_pointers_move_when_their_version_is_there(
    versions: BundleVersions, there: BundleVersions, address: str
) -> None:
    push(versions, address)
    pull(there, address)
    copy_version(versions, 2)
    versions.point({"previous": 1})
    versions.point({"champion": 2})
    assert push(versions, address, "2") == [2]
    assert pull(there, address) == [2]
    assert there.pointers() == {"champion": 2}  # that of the first version was not pushed
    assert push(versions, address) == []
    assert pull(there, address) == []
    assert there.pointers() == {"champion": 2, "previous": 1}
    copy_version(there, 3)  # no number is given twice


def test_a_pointer_that_is_cleared_is_cleared_there_and_by_who_pulls(
    versions: BundleVersions, there: BundleVersions, address: str
) -> None:
    """Else an old challenger stays, and promoting it would put it before a newer champion."""
    copy_version(versions, 2)
    versions.point({"challenger": 2})
    push(versions, address)
    pull(there, address)
    assert there.pointers() == {"champion": 1, "challenger": 2}
    versions.point({"previous": 1})
    versions.point({"champion": 2})
    versions.point({"challenger": None})
    assert push(versions, address, "2") == []
    assert pull(there, address) == []
    assert there.pointers() == {"champion": 2, "challenger": 2}  # with one version named, others are left alone
    push(versions, address)
    pull(there, address)
    assert there.pointers() == {"champion": 2, "previous": 1}


def test_a_version_that_was_made_meanwhile_is_not_replaced(versions: BundleVersions) -> None:
    with (
        pytest.raises(UserError, match=r"docs@1: another process has made that version meanwhile; run again"),
        versions.receiving(1),
    ):
        pass
    assert versions.manifest(1).version == 1


def test_a_version_of_one_number_alone_moves_no_pointer(
    versions: BundleVersions, there: BundleVersions, address: str
) -> None:
    push(versions, address)
    assert pull(there, address, "1") == [1]
    assert there.pointers() == {}
    with pytest.raises(UserError, match=r"docs has no challenger; it has champion"):
        pull(there, address, "challenger")


def test_a_version_without_its_manifest_is_not_there(
    versions: BundleVersions, there: BundleVersions, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = RemoteFolder.upload

    def cut_off(remote: RemoteFolder, names: list[str], folder: Path, label: str | None = None) -> None:
        upload(remote, names[:-1], folder, label)
        raise UserError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "upload", cut_off)
        with pytest.raises(UserError, match="the line is dead"):
            push(versions, address)
    with pytest.raises(UserError, match="has no version that a pointer names"):
        pull(there, address)
    with pytest.raises(UserError, match=r"docs/1 is not a version of a bundle: it has no manifest\.json"):
        pull(there, address, "1")
    assert push(versions, address) == [1]
    assert pull(there, address) == [1]


def test_a_damaged_file_is_not_taken_in(versions: BundleVersions, there: BundleVersions, address: str) -> None:
    push(versions, address)
    name = next(iter(versions.manifest().files))
    RemoteFolder(f"{address}/docs/1").write_text(name, "x" * versions.manifest().files[name].bytes)
    with pytest.raises(UserError, match=r"docs@1 is damaged: .* \(its SHA-256 differs\)"):
        pull(there, address)
    assert there.numbers() == []
    assert there.pointers() == {}


@pytest.mark.parametrize("name", ["../../escaped", "/escaped"])
def test_a_manifest_names_no_file_outside(
    name: str, versions: BundleVersions, there: BundleVersions, address: str
) -> None:
    push(versions, address)
    remote = RemoteFolder(f"{address}/docs/1")
    manifest = json.loads(str(remote.read_text("manifest.json")))
    manifest["files"][name] = {"bytes": 1, "sha256": "0"}
    remote.write_text("manifest.json", json.dumps(manifest))
    with pytest.raises(UserError, match=r"names .*escaped, which is outside that folder; nothing"):
        pull(there, address)


def test_two_versions_of_one_number_are_refused(versions: BundleVersions, there: BundleVersions, address: str) -> None:
    push(versions, address)
    shutil.copytree(versions.path(1), there.folder / "1")
    manifest = there.path(1) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace('"created": "', '"created": "2'))
    for move in (push, pull):
        with pytest.raises(UserError, match=r"docs@1 here and .*docs/1 are two versions with the same number"):
            move(there, address, "1")


def test_the_commands(
    versions: BundleVersions, there: BundleVersions, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run(["push", "docs", address, f"bundle.dir={versions.dir}"])
    command.run(["pull", "docs", address, f"bundle.dir={there.dir}"])
    command.run(["pull", "docs@1", address, f"bundle.dir={there.dir}"])
    assert capsys.readouterr().out.splitlines() == [
        f"pushed to {address}: docs@1",
        f"pulled from {address}: docs@1",
        f"pulled from {address}: nothing, all was there",
    ]
    with pytest.raises(ConfigError, match="'bundles' is not an address in object storage"):
        command.run(["push", "docs", "bundles"])
