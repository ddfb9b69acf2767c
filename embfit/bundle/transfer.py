"""Copies versions of a bundle to and from object storage: one machine pushes, and servers pull.

The layout there is the local one, `NAME/VERSION/…`. A version's manifest is written last: a version without it does not
exist yet. Pointers are small files that hold a number (`NAME/champion`), written after the version that they name; an
empty one names nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from embfit.bundle.manifest import FILE, Manifest, read_manifest, verify
from embfit.bundle.pointers import POINTERS
from embfit.bundle.versions import BundleVersions
from embfit.errors import UserError
from embfit.object_storage import RemoteFolder

log = logging.getLogger(__name__)


def push(versions: BundleVersions, address: str, which: str = "") -> list[int]:
    """Copy versions and pointers into object storage; return the numbers of the new ones there.

    Without `which`, all remote pointers become the local ones; otherwise only those that name the version.

    Args:
        versions: the bundle.
        address: the folder of all bundles there: `s3://bucket/bundles`.
        which: a number or a pointer's name; empty for all versions that a pointer names.

    Raises:
        UserError: the version does not exist or is damaged, another version has its number there, or the storage
            cannot be reached.
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
    for name in reversed(POINTERS):  # `previous` before `champion`: a cut between them must not lose the old champion
        named = pointers.get(name)
        if named in wanted:
            remote.write_text(name, f"{named}\n")
        elif (
            named is None and not which and name in known
        ):  # otherwise a promoted challenger would stay a challenger there
            remote.write_text(name, "")
    return pushed


def pull(versions: BundleVersions, address: str, which: str = "") -> list[int]:
    """Copy versions and pointers from object storage; return the numbers of the new versions.

    A server that follows the champion opens it like a version that was published locally.

    Args:
        versions: the bundle; its folder is made if it is missing.
        address: the folder of all bundles there.
        which: a number or a pointer's name; empty for all versions that a remote pointer names. If it is empty, the
            local pointers become the remote ones; otherwise they stay.

    Raises:
        UserError: the version does not exist there, a file is damaged, another version has its number here, or the
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
            versions.point({name: pointers.get(name) for name in POINTERS})
    return pulled


def _pointers(remote: RemoteFolder) -> dict[str, int]:
    """Return the pointers of a bundle in object storage."""
    found = {name: remote.read_text(name) for name in POINTERS}
    return {name: int(text) for name, text in found.items() if text is not None and text.strip().isdigit()}


def _names(manifest: str, address: str) -> Sequence[str]:
    """Return the files that a manifest lists."""
    try:
        return [str(name) for name in json.loads(manifest)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{address}/{FILE} is damaged ({error}); push the version again") from error


def _named_alike(manifest: Manifest, versions: BundleVersions, number: int) -> Manifest:
    """Return a manifest, after checking that it belongs to the bundle and version of its folder."""
    if (manifest.name, manifest.version) != (versions.name, number):
        raise UserError(f"the manifest under {versions.name}/{number} is of {manifest.label}; it is not pulled")
    return manifest


def _check_same(label: str, there: str, here: str, address: str) -> None:
    """Refuse two different versions with the same number, since a published version never changes."""
    if there != here:
        raise UserError(
            f"{label} here and {address} are two versions with the same number; publish bundles on one machine, or "
            "give one of them another bundle.name"
        )
