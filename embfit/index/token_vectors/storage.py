"""Arrays of a token index on disk: written in parts, memory-mapped, and checked by size or by digest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embfit.atomic_files import FileFacts
from embfit.errors import UserError


def facts_of(folder: Path) -> dict[str, FileFacts]:
    """Return the size and digest of each of a folder's files, by its name `FOLDER/FILE`."""
    return {f"{folder.name}/{path.name}": FileFacts.of(path) for path in sorted(folder.iterdir())}


def check_sizes(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Check that an index's files have the sizes that it records.

    Raises:
        UserError: a file is missing or has another size.
    """
    for name, facts in files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error}); build the index again") from error
        if found != facts.bytes:
            raise UserError(
                f"{folder / name} has {found} bytes instead of {facts.bytes}: it was truncated or changed; build the "
                "index again, or copy it again from its source"
            )


def check_contents(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Check that an index's files have the digests that it records; this reads all of them.

    Raises:
        UserError: a file's content has changed.
    """
    check_sizes(folder, files)
    for name, facts in files.items():
        if (found := FileFacts.of(folder / name).sha256) != facts.sha256:
            raise UserError(
                f"{folder / name} has changed since it was written (SHA-256 {found[:12]} instead of "
                f"{facts.sha256[:12]}); build the index again, or copy it again from its source"
            )


@contextmanager
def writing(path: Path, dtype: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield a memory-mapped array to fill, so that memory holds only the part that is being written.

    Raises:
        OSError: the disk is too full. Space is allocated first, since writing to a map without space kills the process.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # Linux
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    yield array
    array.flush()


def write(path: Path, array: np.ndarray) -> None:
    """Write a whole array."""
    with path.open("wb") as file:
        np.save(file, array)


def open_array(path: Path) -> np.ndarray:
    """Open an array, memory-mapped.

    Raises:
        UserError: the file holds no array.
    """
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array ({error}); build the index again") from error
    return mapped
