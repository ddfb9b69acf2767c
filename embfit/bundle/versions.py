"""The versions of one bundle: folders named by integers, and pointers to the versions in use.

    bundles/NAME/1, 2, 3      published versions, which never change
    bundles/NAME/champion     a symbolic link to the version that servers follow
    bundles/NAME/challenger   a link to the version that may become champion
    bundles/NAME/previous     a link to the version that was champion before; `pointers` documents how links move

Versions are ordered by number, never by time, and a number is never used twice, even if its version was removed.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from embfit.atomic_files import replacing_folder, sync, write_text
from embfit.bundle.manifest import FILE, Manifest, read_manifest
from embfit.bundle.pointers import POINTERS, Pointer, complete_move, move_pointers, read_pointer
from embfit.errors import ConfigError, UserError
from embfit.store import held
from embfit.suggestions import suggestion

log = logging.getLogger(__name__)

LAST = ".last-version"  # the greatest number ever assigned
IDENTITY = ".identity"  # distinguishes this bundle from others of its name in shared databases
NAME_SIGNS = "letters, digits, dots, hyphens and underscores"


@dataclass(frozen=True)
class BundleVersions:
    """All versions of one bundle.

    Args:
        dir: the folder of all bundles.
        name: the bundle's name, which is a folder in it.

    Raises:
        ConfigError: the name is not valid as a folder's name.
    """

    dir: Path
    name: str

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or not all(sign.isalnum() or sign in "-_." for sign in self.name):
            raise ConfigError(f"bundle.name={self.name}: a bundle's name has {NAME_SIGNS}, and no dot at its beginning")

    @property
    def folder(self) -> Path:
        """The folder of the versions and pointers."""
        return self.dir / self.name

    def numbers(self) -> list[int]:
        """Return the numbers of the published versions, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _is_version(path))

    def identity(self) -> str:
        """Return a random identifier that distinguishes this bundle from others of its name; made at the first call."""
        path = self.folder / IDENTITY
        if not path.is_file():
            write_text(path, uuid.uuid4().hex + "\n")
        return path.read_text(encoding="utf-8").strip()

    def pointer(self, name: Pointer) -> int | None:
        """Return the number that a pointer names; None if it is not set."""
        return read_pointer(self.folder, name)

    def pointers(self) -> dict[Pointer, int]:
        """Return the pointers that are set, with the numbers that they name."""
        return {name: number for name in POINTERS if (number := self.pointer(name)) is not None}

    def number(self, which: str | int = "champion") -> int:
        """Return the number of a version.

        Args:
            which: the number, or the name of a pointer.

        Raises:
            UserError: the bundle, the version or the pointer does not exist.
        """
        known = self.numbers()
        if not known:
            others = [path.name for path in self.dir.iterdir() if path.is_dir()] if self.dir.is_dir() else []
            raise UserError(
                f"{self.dir} has no bundle {self.name!r}{suggestion(self.name, others)}; make its first version with "
                f"task=index bundle.name={self.name}"
            )
        number = int(which) if str(which).isdigit() else self._pointed(str(which))
        if number not in known:
            raise UserError(f"{self.name}@{which}: there is no version {number}; {self.folder} has {_listed(known)}")
        return number

    def path(self, which: str | int = "champion") -> Path:
        """Return the folder of a version, by its number or a pointer's name.

        Raises:
            UserError: the bundle, the version or the pointer does not exist.
        """
        return self.folder / str(self.number(which))

    def manifest(self, which: str | int = "champion") -> Manifest:
        """Return the manifest of a version.

        Raises:
            UserError: the version does not exist, or its manifest is damaged.
        """
        return read_manifest(self.path(which))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for moving pointers and removing versions; other processes wait.

        A move that a killed process has left unfinished is completed first.
        """
        with held(self._lock("pointers"), f"{self.name}: waiting for another process that moves its pointers"):
            complete_move(self.folder)
            yield

    def point(self, moves: Mapping[Pointer, int | None]) -> None:
        """Point pointers to versions, or remove them (None), all at once. The caller holds `changing`.

        Raises:
            OSError: the disk is full; no pointer has moved.
        """
        move_pointers(self.folder, moves)

    @contextmanager
    def publishing(self) -> Iterator[tuple[int, Path]]:
        """Yield the number of a new version, and an empty folder that becomes the version if the block succeeds.

        Only one process publishes at a time; others wait. Leftovers of a killed process are removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self._lock("publishing"), f"{self.name}: waiting for another process that makes a version"):
            for left in (*self.folder.glob(".*-unfinished"), *self.folder.glob(".*-removed")):
                shutil.rmtree(left, ignore_errors=True)
            number = self._reserve()
            with self._new_version(number) as unfinished:
                yield number, unfinished

    @contextmanager
    def not_publishing(self) -> Iterator[bool]:
        """Keep others from making a version during the block; yield False, without waiting, if one is being made."""
        lock = self._lock("publishing")
        with suppress(Timeout):
            lock.acquire(timeout=0)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    @contextmanager
    def registering(self) -> Iterator[None]:
        """Hold the lock for updating a registry; other processes wait."""
        with held(self._lock("registry"), f"{self.name}: waiting for another process that updates the registry"):
            yield

    @contextmanager
    def receiving(self, number: int) -> Iterator[Path]:
        """Yield an empty folder that becomes a version with a number that another machine assigned.

        Raises:
            UserError: a version of that number exists by now.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self._lock("publishing"), f"{self.name}: waiting for another process that makes a version"):
            if number in self.numbers():  # made while this process waited; it must not be replaced
                raise UserError(f"{self.name}@{number}: another process has made that version meanwhile; run again")
            with self._new_version(number) as unfinished:
                yield unfinished
            write_text(self.folder / LAST, f"{max(number, self._last())}\n")

    def remove(self, number: int, discard: Callable[[Path], None] = lambda folder: None) -> bool:
        """Remove a version unless a process has it open; return whether it is gone. The caller holds `changing`.

        It disappears atomically: no reader finds a part of it.

        Args:
            number: the version's number.
            discard: is called with its folder before that is removed, when no reader can open it any more; if it
                raises, the version stays.
        """
        folder = self.folder / str(number)
        with (folder / FILE).open("rb") as file:
            if not _lock_file(file, fcntl.LOCK_EX):
                return False
            discard(folder)
            removed = self.folder / f".{number}-removed"
            shutil.rmtree(removed, ignore_errors=True)
            folder.rename(removed)
            sync(self.folder)
        shutil.rmtree(removed, ignore_errors=True)  # a process that makes a version may remove it, too
        return True

    def _pointed(self, name: str) -> int:
        if name not in POINTERS:
            raise UserError(f"{self.name}@{name}: name a version by its number, or {', '.join(POINTERS)}")
        number = self.pointer(name)
        if number is None:
            raise UserError(
                f"{self.name} has no {name}; it has versions {_listed(self.numbers())}: "
                f"embfit bundle promote {self.name}@{self.numbers()[-1]} makes one the champion"
            )
        return number

    def _reserve(self) -> int:
        """Return the next number, and record it, so that no other version gets it."""
        number = self._last() + 1
        write_text(self.folder / LAST, f"{number}\n")
        return number

    def _last(self) -> int:
        """Return the greatest number ever assigned; 0 before the first."""
        last = 0
        with suppress(OSError, ValueError):
            last = int((self.folder / LAST).read_text(encoding="utf-8"))
        return max([last, *self.numbers()])

    @contextmanager
    def _new_version(self, number: int) -> Iterator[Path]:
        """Yield an empty folder that becomes a version if the block succeeds."""
        with replacing_folder(self.folder / str(number)) as unfinished:
            yield unfinished
            for path in unfinished.rglob("*"):
                if path.is_file():
                    path.chmod(0o444)  # published versions do not change

    def _lock(self, what: str) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{what}.lock")


def split_version(path: str) -> tuple[Path, str]:
    """Split `bundles/docs@3` into the bundle's folder and the version; without an `@`, the version is the champion."""
    folder = Path(path).expanduser()
    name, _, which = folder.name.partition("@")
    return folder.parent / name if name else folder, which or "champion"


def bundle_names(folder: Path) -> list[str]:
    """Return the names of the bundles in a folder, sorted."""
    inside = folder.iterdir() if folder.is_dir() else iter(())
    return sorted(path.name for path in inside if path.is_dir() and any(map(_is_version, path.iterdir())))


class VersionLease:
    """A reader's lock on a version, which keeps `prune` from removing it.

    The operating system releases it when the process ends, in whatever way.

    Args:
        folder: the version's folder.

    Raises:
        UserError: the folder is not a version, or is being removed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._file: IO[bytes] = (folder / FILE).open("rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{folder} is not a version of a bundle: it has no {FILE}") from error
        if not _lock_file(self._file, fcntl.LOCK_SH):
            self._file.close()
            raise UserError(f"{folder} is being removed; use another version")

    def release(self) -> None:
        """Release the lock."""
        self._file.close()


def _is_version(path: Path) -> bool:
    return path.name.isdigit() and not path.is_symlink() and (path / FILE).is_file()


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _lock_file(file: IO[bytes], kind: int) -> bool:
    """Lock a file without waiting; return whether it succeeded."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
