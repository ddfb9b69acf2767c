"""The pointers of a bundle: symbolic links to its versions, of which several move as one.

A rollback exchanges two pointers, and no file system replaces two links at once. So the new links are made in a folder
of their own, which then gets the name `.moving`: from that moment they apply, because a reader looks there first. Then
each takes its place. If the process dies before, nothing has moved; if it dies after, the next change of the bundle
completes the move.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from embfit.atomic_files import sync

Pointer: TypeAlias = Literal["champion", "challenger", "previous"]
POINTERS: tuple[Pointer, ...] = get_args(Pointer)

MOVING = ".moving"  # new links that apply already and have not all taken their places
PREPARED = ".prepared-"  # the beginning of the name of a folder of links that do not apply yet
CLEARED = "none"  # the target of a new link that removes its pointer


def read_pointer(folder: Path, name: Pointer) -> int | None:
    """Return the number that a pointer in a bundle's folder names; None if it is not set."""
    for link in (folder / MOVING / name, folder / name):
        with suppress(OSError):
            target = str(link.readlink())
            return int(target) if target.isdigit() else None
    return None


def move_pointers(folder: Path, moves: Mapping[Pointer, int | None]) -> None:
    """Set pointers to versions, or remove them (None), all at once. The caller excludes other changes.

    Args:
        folder: the bundle's folder.
        moves: the pointers to change.

    Raises:
        OSError: the disk is full; no pointer has moved.
    """
    complete_move(folder)
    prepared = folder / f"{PREPARED}{uuid.uuid4().hex[:8]}"
    try:
        prepared.mkdir()
        for name, number in moves.items():
            (prepared / name).symlink_to(CLEARED if number is None else str(number))
        sync(prepared)
        prepared.rename(folder / MOVING)
    except BaseException:
        shutil.rmtree(prepared, ignore_errors=True)
        raise
    sync(folder)
    complete_move(folder)


def complete_move(folder: Path) -> None:
    """Complete a move that was interrupted, if there is one. The caller excludes other changes."""
    for left in folder.glob(f"{PREPARED}*"):
        shutil.rmtree(left, ignore_errors=True)
    moving = folder / MOVING
    if not moving.is_dir():
        return
    for name in reversed(POINTERS):  # `previous` before `champion`, for servers that read only the links
        with suppress(FileNotFoundError):
            if str((moving / name).readlink()) == CLEARED:
                (folder / name).unlink(missing_ok=True)
                (moving / name).unlink()
            else:
                (moving / name).replace(folder / name)
    sync(folder)  # before the folder goes, so that no machine that crashes here has lost a link
    moving.rmdir()
    sync(folder)
