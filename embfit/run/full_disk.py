"""What to do about a full disk: names the configured folder that lies on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embfit.errors import UserError, is_disk_full

LITTLE = 2**30  # free bytes below which a disk may be the full one: what could not be written has been removed again


def configured_folders(values: Mapping[str, Any]) -> dict[str, Path]:
    """Return the folders that a configuration names, by key: `run.dir`, `store.dir`, `bundle.dir`."""
    return {
        f"{section}.dir": Path(inside["dir"]).expanduser()
        for section, inside in values.items()
        if isinstance(inside, Mapping) and isinstance(inside.get("dir"), str)
    }


def full_disk(error: BaseException, folders: Mapping[str, Path]) -> str:
    """Return the message for a full disk.

    If the error names a file, the advice is about the folder that holds it. Few libraries name it; then the advice is
    about the folders on disks with little space, or about all folders if no disk has little (as with a quota).

    Args:
        error: the error that the full disk caused.
        folders: key → configured folder.
    """
    file = (error.filename2 or error.filename) if isinstance(error, OSError) else None  # the second one of a new link
    if not file:
        return f"the disk is full; free some space{_or_move(_with_little_space(folders) or list(folders))}"
    path = Path(os.path.realpath(file))
    holding = [key for key, folder in folders.items() if path.is_relative_to(os.path.realpath(folder))]
    innermost = max(holding, key=lambda key: len(Path(os.path.realpath(folders[key])).parts), default=None)
    return f"the disk is full: {file}; free some space{_or_move([innermost] if innermost else []) or ' there'}"


@contextmanager
def advice_on_full_disk(folders: Mapping[str, Path]) -> Iterator[None]:
    """Replace the block's error by advice about these folders if a disk is full.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise UserError(full_disk(error, folders)) from error
        raise


def _with_little_space(folders: Mapping[str, Path]) -> list[str]:
    found = []
    for key, folder in folders.items():
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if shutil.disk_usage(existing).free < LITTLE:
            found.append(key)
    return found


def _or_move(keys: list[str]) -> str:
    *first, last = keys or [""]
    return f", or put {', '.join(first)}{' and ' if first else ''}{last} on another disk" if last else ""
