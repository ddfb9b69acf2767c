"""Atomic writes of files and folders, with the mode that the umask gives."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embfit.errors import is_disk_full

PRIVATE = 0o600  # the mode of files that safetensors makes, whatever the umask


@dataclass(frozen=True)
class FileFacts:
    """The size and the digest of a file, by which a later reader recognises it.

    Args:
        bytes: the file's size.
        sha256: the digest of the file's content.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Read a file and return its facts."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file that replaces `path` if the block ends without an exception.

    Readers, also after a crash, find the old content or the new one, never a part.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    temporary.touch(exist_ok=False)  # the umask's mode; files of mkstemp are private
    mode = temporary.stat().st_mode
    try:
        with naming(path):
            yield temporary
        temporary.chmod(mode)  # safetensors makes a private file of its own
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` if the block ends without an exception.

    The old folder is removed after the new one is in place, and is restored if that fails.
    """
    unfinished, old = (folder.with_name(f".{folder.name}-{state}") for state in ("unfinished", "old"))
    _put_back(old, folder)  # a process was killed between the two renames
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with naming(folder):
            yield unfinished
        complete(unfinished)
        if folder.exists():
            folder.rename(old)
        unfinished.rename(folder)
        sync(folder.parent)
    finally:
        _put_back(old, folder)
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file or folder to the block's error if the disk is full: few libraries name it."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error) and getattr(error, "filename", None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _put_back(old: Path, folder: Path) -> None:
    """Move a folder that was moved aside back to its place, or remove it if another folder is there."""
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(folder)


def complete(folder: Path) -> None:
    """Sync a folder's files to the disk, and give them the umask's mode, since files of safetensors are private."""
    probe = folder / f".mode-{secrets.token_hex(6)}"
    probe.touch(exist_ok=False)
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if stat.S_IMODE(path.lstat().st_mode) == PRIVATE:
            path.chmod(mode)
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
