"""Which processes of a machine use a journal: each holds a lock with its name, which goes with it however it ends."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


class JournalOwner:
    """One use of a journal by this process.

    Args:
        folder: the folder of the locks; made with the first.

    Attributes:
        name: tells it from all others.
    """

    def __init__(self, folder: Path) -> None:
        self.name = uuid4().hex
        self._folder = folder
        self._lock = FileLock(folder / self.name)

    def acquire(self) -> None:
        """Hold the lock: others see that this process runs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()

    def release(self) -> None:
        """Give the lock back: others see that what this process has sent and not recorded is lost."""
        self._lock.release()
        self.forget(self.name)

    def is_alive(self, owner: str) -> bool:
        """Say whether an owner still uses the journal."""
        if owner == self.name:
            return True
        lock = FileLock(self._folder / owner)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def forget(self, owner: str) -> None:
        """Remove the lock file of an owner that has ended."""
        (self._folder / owner).unlink(missing_ok=True)
