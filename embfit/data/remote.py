"""Collections in object storage: copied into the store once, and again when a file there has changed."""

from __future__ import annotations

from pathlib import Path

from embfit.data.files import named_path
from embfit.errors import UserError
from embfit.object_storage import RemoteFolder, is_remote
from embfit.store import DOWNLOADS, Store

VERSION = 1  # of what is kept of them


def local_path(path: str, key: str, store: Store) -> Path:
    """Return where a file or folder is on this machine.

    Args:
        path: of this machine, or an address in object storage (`s3://bucket/folder`), whose files are copied.
        key: the key that names it, for messages.
        store: keeps the copies, by the address and by each file's size and version.

    Raises:
        UserError: there is nothing there, or the storage cannot be reached or read.
    """
    if not is_remote(path):
        return named_path(path, key)
    remote = RemoteFolder(path)
    files = remote.files()
    if not files:
        raise UserError(f"{path}: there is no such file or folder")
    if unknown := [name for name, file in files.items() if not file.version]:
        raise UserError(
            f"{path}: the storage gives neither a version nor a time of {unknown[0] or 'it'}, so a changed file would "
            f"not be noticed; copy the files to this machine, and name their folder by {key}"
        )

    def build(folder: Path) -> None:
        remote.download(list(files), folder / remote.name, f"copying {path}")

    content = {"address": path, "files": {name: [file.bytes, file.version] for name, file in files.items()}}
    return store.entry(DOWNLOADS, content, build, version=VERSION) / remote.name
