"""A content-addressed store of stage results: the same inputs are never computed twice.

An entry is a folder named after the digest of everything that its content depends on. It is built under a temporary
name in the store, synced and renamed, so a crash leaves no partial entry. With a file lock per key, parallel jobs build
each key once, while the others wait for it.

A key describes the inputs, and its version the code that processes them. A change of code after which an equal key
gives other content must raise the version beside that code: then entries of the old version are never found again. A
change that leaves the content as it is keeps the version.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from embfit.atomic_files import complete, naming, sync, write_text
from embfit.errors import UserError
from embfit.object_storage import RemoteFolder

log = logging.getLogger(__name__)

CACHE_TAG = "CACHEDIR.TAG"  # marks a cache folder (https://bford.info/cachedir)
CACHE_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# embfit's store: results that can be computed again\n"
KEY = "key.json"  # records an entry's key; its time is that of the entry's last use
DAY = 24 * 3600
DOWNLOADS = "downloads"  # the kind of local copies of files in object storage, which are not shared
ABANDONED = {
    ".unfinished": DAY,
    ".resumable": 14 * DAY,
}  # seconds after which a killed process's unfinished entry is removed


class Store:
    """Finished stage results under one folder, found again by what made them.

    Args:
        dir: the store's folder; made when first used.
        enabled: false computes everything again, in a folder that lives as long as this object.
        shared: a folder in object storage (`s3://bucket/store`) with finished entries of all machines; None keeps them
            only here.
    """

    def __init__(self, dir: str | Path = "outputs/store", enabled: bool = True, shared: str | None = None) -> None:
        self.enabled = enabled
        self.shared = RemoteFolder(shared) if shared and enabled else None
        self._scratch = None if enabled else tempfile.TemporaryDirectory(prefix="embfit-")
        self.dir = Path(dir if self._scratch is None else self._scratch.name).expanduser().absolute()
        self.reused: list[str] = []  # kinds of the entries that were reused from earlier runs
        self.built: list[str] = []
        self._seen: set[Path] = set()

    def entry(
        self,
        kind: str,
        key: Mapping[str, Any],
        build: Callable[[Path], None],
        *,
        version: int,
        resumable: bool = False,
    ) -> Path:
        """Return the folder of a finished result, building it if it does not exist.

        Args:
            kind: the kind of the result (`embeddings`, `negatives`): the sub-folder, and the word in messages.
            key: everything that the content depends on, as JSON values; `key.json` in the entry records it.
            build: fills the empty folder that it receives.
            version: the version of `build`.
            resumable: whether `build` can continue from the files that a failed or killed `build` of the same key has
                left. After two weeks they count as abandoned.

        Raises:
            OSError: the folder cannot be written (a full disk, no permission); an unfinished entry that is not
                resumable is removed.
            UserError: the shared folder cannot be reached.
        """
        key = {**key, "version": version}
        name = digest(key)
        final = self.dir / kind / name
        if not final.is_dir():
            self._make_folder(final.parent)
            lock = FileLock(_lock_of(final))
            with held(lock, f"waiting for another job that is making the same {kind}"):
                if not final.is_dir() and not self._fetch(final):
                    self._build(final, key, build, resumable)
                    self.built.append(kind)
                    self._seen.add(final)
                    self._share(final)
        if final not in self._seen:
            self._seen.add(final)
            self.reused.append(kind)
            with suppress(OSError):  # a read-only store
                os.utime(final / KEY)  # pruning goes by the time of the last use
            log.info("reusing %s from the store (%s)", kind, name[:12])
        return final

    def has(self, kind: str, key: Mapping[str, Any], *, version: int) -> bool:
        """Return whether a finished result exists; arguments as `entry`."""
        return (self.dir / kind / digest({**key, "version": version})).is_dir()

    @contextmanager
    def growing(self, kind: str, key: Mapping[str, Any], *, version: int) -> Iterator[Path]:
        """Yield the folder of a result that grows over time and is never finished.

        No other process has it during the block. Write files in it with `replacing`, so that a crash leaves no partial
        file, or in a format that shows a partial one.

        Args:
            kind: as for `entry`.
            key: as for `entry`.
            version: the version of the files' content.
        """
        key = {**key, "version": version}
        folder = self.dir / kind / digest(key)
        self._make_folder(folder.parent)
        with held(FileLock(_lock_of(folder)), f"waiting for another job that is making the same {kind}"):
            if folder not in self._seen:
                self._seen.add(folder)
                (self.reused if folder.is_dir() else self.built).append(kind)
            folder.mkdir(exist_ok=True)
            _record(folder, key)
            yield folder

    def _make_folder(self, folder: Path) -> None:
        """Make a folder in the store, marked as a cache: it needs no backup and contains no runs."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (self.dir / CACHE_TAG).exists():
            write_text(self.dir / CACHE_TAG, CACHE_SIGNATURE)

    def _build(self, final: Path, key: Mapping[str, Any], build: Callable[[Path], None], resumable: bool) -> None:
        unfinished = final.with_suffix(".resumable" if resumable else ".unfinished")
        if not resumable:
            shutil.rmtree(unfinished, ignore_errors=True)  # a killed process left it, since this process holds the lock
        unfinished.mkdir(exist_ok=True)
        unfinished.touch()  # being built again, so not abandoned
        _remove_abandoned(final.parent)
        try:
            with naming(self.dir):
                build(unfinished)
                _record(unfinished, key)
                complete(unfinished)
            unfinished.rename(final)
            sync(final.parent)
        finally:
            if not resumable:
                shutil.rmtree(unfinished, ignore_errors=True)  # it is gone after the rename

    def _fetch(self, final: Path) -> bool:
        """Copy an entry from the shared folder, if it is complete there; return whether it was copied."""
        if self.shared is None or final.parent.name == DOWNLOADS:
            return False
        remote = self.shared.child(f"{final.parent.name}/{final.name}")
        files = remote.files()
        if KEY not in files:  # which is written last
            return False
        unfinished = final.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            with naming(self.dir):
                remote.download(list(files), unfinished, f"copying {final.parent.name} from the shared store")
                complete(unfinished)
            unfinished.rename(final)
            sync(final.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return True

    def _share(self, final: Path) -> None:
        """Copy an entry into the shared folder, unless it is there; if that fails, the entry stays only here."""
        if self.shared is None or final.parent.name == DOWNLOADS:
            return
        names = [path.relative_to(final).as_posix() for path in sorted(final.rglob("*")) if path.is_file()]
        names.sort(key=lambda name: name == KEY)  # last: a reader that finds it finds all files
        remote = self.shared.child(f"{final.parent.name}/{final.name}")
        try:
            if remote.read_text(KEY) is None:  # otherwise its files would be replaced while others read them
                remote.upload(names, final, f"sharing {final.parent.name} with other machines")
        except UserError as error:
            log.warning("%s are not shared: %s", final.parent.name, error)


@dataclass(frozen=True)
class StoredEntry:
    """An entry of a store on disk.

    Args:
        path: its folder, inside the folder of its kind.
        bytes: the size of its files.
        used: when it was last made or reused, in seconds since 1970.
        finished: whether it is complete. An unfinished one is being built, or was left by a process that failed.
    """

    path: Path
    bytes: int
    used: float
    finished: bool


def stored_entries(dir: Path) -> list[StoredEntry]:
    """Return the entries of the store in a folder, the least recently used first."""
    found = []
    for folder in dir.glob("*/*/"):
        with suppress(FileNotFoundError):  # another process has removed it, or finished it under another name
            used = _last_use(folder)
            found.append(StoredEntry(folder, folder_bytes(folder), used, folder.suffix not in ABANDONED))
    return sorted(found, key=lambda entry: (entry.used, str(entry.path)))


def folder_bytes(folder: Path) -> int:
    """Return the size of the files in a folder, without links and files that vanish meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(place, name).lstat()
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


def remove_entry(entry: StoredEntry) -> bool:
    """Remove an entry, unless a process builds it or has used it since it was listed; return whether it is gone."""
    try:
        with FileLock(_lock_of(entry.path)).acquire(timeout=0):
            if _last_use(entry.path) > entry.used:
                return False
            if entry.finished:  # no reader finds a part of it; after a crash the rest is removed as abandoned
                unfinished = entry.path.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                entry.path.rename(unfinished)
                shutil.rmtree(unfinished)
            else:
                shutil.rmtree(entry.path)
    except Timeout:
        return False
    except FileNotFoundError:  # another process has removed it
        return True
    return True


def _last_use(folder: Path) -> float:
    """Return when an entry was last made or reused, in seconds since 1970."""
    key = folder / KEY
    return (key if key.is_file() else folder).stat().st_mtime


def digest(key: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a mapping of JSON values, equal for equal mappings whatever their order."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _record(folder: Path, key: Mapping[str, Any]) -> None:
    """Write an entry's key into it, for people."""
    write_text(folder / KEY, json.dumps(key, indent=2, sort_keys=True) + "\n")


@contextmanager
def held(lock: FileLock, waiting: str) -> Iterator[None]:
    """Hold a lock; if another process has it, log a message while waiting."""
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.info("%s", waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_abandoned(folder: Path) -> None:
    """Remove old unfinished entries that no process is building."""
    for suffix, seconds in ABANDONED.items():
        for path in folder.glob(f"*{suffix}"):
            with suppress(FileNotFoundError, Timeout):  # another process removes it, or builds it
                if time.time() - path.stat().st_mtime > seconds:
                    with FileLock(_lock_of(path)).acquire(timeout=0):
                        shutil.rmtree(path, ignore_errors=True)


def _lock_of(entry: Path) -> Path:
    return entry.with_suffix(".lock")
