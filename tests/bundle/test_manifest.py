"""What a version says of itself is held to what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embfit.bundle import BundleVersions, read_manifest, verify
from embfit.errors import UserError


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_manifest_reads_back(versions: BundleVersions) -> None:
    manifest = read_manifest(versions.path(1))
    assert manifest.label == "docs@1"
    assert (manifest.documents.count, manifest.documents.encoded, manifest.documents.reused) == (12, 12, 0)
    assert manifest.documents.columns == ["_id", "title", "text"]
    assert manifest.index.kind == "exact"
    assert manifest.index.recall == 1.0
    assert manifest.model.precision == "fp32"
    assert manifest.quality is not None
    assert manifest.quality.queries == 2
    assert {*manifest.files} >= {"model/model.safetensors", "index/vectors.npy", "documents.arrow", "quality.json"}
    assert manifest.bytes == sum((versions.path(1) / name).stat().st_size for name in manifest.files)
    verify(versions.path(1), manifest)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is damaged: Expecting value"),
        (b'{"name": "docs"', "is damaged: Expecting"),
        (b"\xff\xfe", "is damaged .invalid start byte"),
        (b"[]", "is damaged: it: Input should be a dictionary"),
        (b'{"name": "docs", "version": "x"}', r"is damaged: \w+"),
        (b'{"format": 9}', "format 9 is not known to this version of embfit, which reads format 1"),
    ],
)
def test_a_damaged_manifest(versions: BundleVersions, content: bytes, told: str) -> None:
    damage(versions.path(1) / "manifest.json", content)
    with pytest.raises(UserError, match=told):
        read_manifest(versions.path(1))


def test_a_missing_manifest_is_no_version(versions: BundleVersions) -> None:
    folder = versions.path(1)
    (folder / "manifest.json").unlink()
    assert versions.numbers() == []
    with pytest.raises(UserError, match="is not a version of a bundle"):
        read_manifest(folder)


def test_every_file_is_held_to_its_size_and_digest(versions: BundleVersions) -> None:
    folder = versions.path(1)
    manifest = read_manifest(folder)
    for name in manifest.files:
        whole = (folder / name).read_bytes()
        damage(folder / name, whole[:-1])
        with pytest.raises(
            UserError, match=f"docs@1 is damaged: .*{name} has {len(whole) - 1} bytes, and {len(whole)}"
        ):
            verify(folder, manifest, contents=False)
        damage(folder / name, bytes([whole[0] ^ 1]) + whole[1:])
        verify(folder, manifest, contents=False)
        with pytest.raises(UserError, match=f"{name} is not the file that was published"):
            verify(folder, manifest)
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            verify(folder, manifest)
        (folder / name).write_bytes(whole)
    (folder / "more").write_text("more")
    with pytest.raises(UserError, match="more was added after it was published"):
        verify(folder, manifest)


def test_the_manifest_is_for_people_too(versions: BundleVersions) -> None:
    text = (versions.path(1) / "manifest.json").read_text()
    assert json.loads(text)["format"] == 1
    assert text.startswith('{\n  "name": "docs",\n  "version": 1,\n')
