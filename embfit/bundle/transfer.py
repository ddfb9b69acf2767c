"""Versions of a bundle in object storage: pushed by the machine that publishes, pulled by those that serve.

A version lies there as it lies here, `NAME/VERSION/…`, and its manifest is written last: a version without one is not
there yet. Pointers are small files that hold a number (`NAME/champion`), and they are written after what they name; an
empty one names nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from embfit.bundle.manifest import FILE, Manifest, read_manifest, verify
from embfit.bundle.versions import POINTERS, BundleVersions
from embfit.errors import UserError
from embfit.object_storage import RemoteFolder

log = logging.getLogger(__name__)


def push(versions: BundleVersions, address: str, which: str = "") -> list[int]:
    """Copy versions into object storage, with the pointers; return the numbers of those that were not there.

    All pointers there become those of here where no version is named; else those alone that name the version.

    Args:
        versions: the bundle.
        address: the folder of all bundles there: `s3://bucket/bundles`.
        which: a number or a pointer's name; empty for all versions that a pointer names.

    Raises:
        UserError: there is no such version, it is damaged, another one has its number there, or the storage cannot be
            reached.
    """
    remote = RemoteFolder(address).child(versions.name)
    pointers = versions.pointers()
    wanted = [versions.number(which)] if which else sorted(set(pointers.values()) or {versions.number()})
    pushed = []
    for number in wanted:
        folder, manifest = versions.path(number), versions.manifest(number)
        verify(folder, manifest)
        there, here = remote.child(str(number)), (folder / FILE).read_text(encoding="utf-8")
        if (published := there.read_text(FILE)) is not None:
            _check_same(manifest.label, published, here, there.address)
            continue
        there.upload([*sorted(manifest.files), FILE], folder, f"pushing {manifest.label}")
        pushed.append(number)
    known = _pointers(remote)
    for name in reversed(POINTERS):  # `previous` before `champion`, as they are moved here
        named = pointers.get(name)
        if named in wanted:
            remote.write_text(name, f"{named}\n")
        elif named is None and not which and name in known:  # else a challenger that is champion now stays one there
            remote.write_text(name, "")
    return pushed


def pull(versions: BundleVersions, address: str, which: str = "") -> list[int]:
    """Copy versions from object storage, and let the pointers name them; return the numbers of those that are new.

    A server that follows the champion takes it up as it does one that was published here.

    Args:
        versions: the bundle; its folder is made if it is missing.
        address: the folder of all bundles there.
        which: a number or a pointer's name; empty for all versions that a pointer names there. The pointers here then
            become those of there; they stay where one version is named.

    Raises:
        UserError: there is no such version there, a file is damaged, another version has its number here, or the
            storage cannot be reached.
    """
    remote = RemoteFolder(address).child(versions.name)
    pointers = _pointers(remote)
    if which and not which.isdigit() and which not in pointers:
        raise UserError(f"{remote.address} has no {which}; it has {', '.join(pointers) or 'no pointer'}")
    one = [int(which) if which.isdigit() else pointers[which]] if which else []
    wanted = one or sorted(set(pointers.values()))
    if not wanted:
        raise UserError(f"{remote.address} has no version that a pointer names; push one: embfit bundle push")
    pulled = []
    for number in wanted:
        there = remote.child(str(number))
        text = there.read_text(FILE)
        if text is None:
            raise UserError(f"{there.address} is not a version of a bundle: it has no {FILE}")
        if number in versions.numbers():
            here = (versions.path(number) / FILE).read_text(encoding="utf-8")
            _check_same(f"{versions.name}@{number}", text, here, there.address)
            continue
        with versions.receiving(number) as folder:
            there.download([*_names(text, there.address), FILE], folder, f"pulling {versions.name}@{number}")
            verify(folder, _named_alike(read_manifest(folder), versions, number))
        pulled.append(number)
    if not which:
        with versions.changing():
            for name in reversed(POINTERS):
                if name not in pointers:
                    versions.clear(name)
                elif versions.pointer(name) != pointers[name]:
                    versions.point(name, pointers[name])
    return pulled


def _pointers(remote: RemoteFolder) -> dict[str, int]:
    """Return the pointers of a bundle in object storage."""
    found = {name: remote.read_text(name) for name in POINTERS}
    return {name: int(text) for name, text in found.items() if text is not None and text.strip().isdigit()}


def _names(manifest: str, address: str) -> Sequence[str]:
    """Return the files that a manifest names."""
    try:
        return [str(name) for name in json.loads(manifest)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{address}/{FILE} is damaged ({error}); push the version again") from error


def _named_alike(manifest: Manifest, versions: BundleVersions, number: int) -> Manifest:
    """Return a manifest that is of the bundle and the version that it lies under."""
    if (manifest.name, manifest.version) != (versions.name, number):
        raise UserError(f"the manifest under {versions.name}/{number} is of {manifest.label}; it is not pulled")
    return manifest


def _check_same(label: str, there: str, here: str, address: str) -> None:
    """Refuse two versions under one number: a published one never changes."""
    if there != here:
        raise UserError(
            f"{label} here and {address} are two versions with the same number; publish bundles on one machine, or "
            "give one of them another bundle.name"
        )
