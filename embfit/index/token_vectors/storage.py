"""Arrays of a token index on disk: written in parts, checked by size when opened and by digest when asked, mapped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embfit.atomic_files import FileFacts
from embfit.errors import UserError


def facts_of(folder: Path) -> dict[str, FileFacts]:
    """Return the facts of a folder's files, as `folder's name/file`."""
    return {f"{folder.name}/{path.name}": FileFacts.of(path) for path in sorted(folder.iterdir())}


def check_sizes(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Hold an index's files to the sizes that it records.

    Raises:
        UserError: one is missing, or shorter or longer.
    """
    for name, facts in files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error}); build the index again") from error
        if found != facts.bytes:
            raise UserError(
                f"{folder / name} has {found} bytes instead of {facts.bytes}: it was cut short or changed; build the "
                "index again, or copy it again from where it came"
            )


def check_contents(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Hold an index's files to the digests that it records, which reads all of them.

    Raises:
        UserError: one has another content.
    """
    check_sizes(folder, files)
    for name, facts in files.items():
        if (found := FileFacts.of(folder / name).sha256) != facts.sha256:
            raise UserError(
                f"{folder / name} has another content than was written (SHA-256 {found[:12]} instead of "
                f"{facts.sha256[:12]}); build the index again, or copy it again from where it came"
            )


@contextmanager
def writing(path: Path, dtype: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Give a mapped array whose content is the file's, so that memory holds only what is being written.

    Raises:
        OSError: the disk has no room for it. It is asked for room first: a map that finds none later kills the process.
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


def opened(path: Path) -> np.ndarray:
    """Map an array.

    Raises:
        UserError: the file holds no array.
    """
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array ({error}); build the index again") from error
    return mapped
