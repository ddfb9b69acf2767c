"""The processes of a machine that use a journal. Each holds a lock, which the system releases when the process ends."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


class JournalOwner:
    """One use of a journal by this process.

    Args:
        folder: the folder of the locks; made with the first.

    Attributes:
        name: is unique among all uses.
    """

    def __init__(self, folder: Path) -> None:
        self.name = uuid4().hex
        self._folder = folder
        self._lock = FileLock(folder / self.name)

    def acquire(self) -> None:
        """Acquire the lock, so that others see that this process runs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()

    def release(self) -> None:
        """Release the lock, so that others see that requests which this process has sent and not recorded are lost."""
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
