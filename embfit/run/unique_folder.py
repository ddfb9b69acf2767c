"""Makes a unique folder: two processes that ask for the same name, such as the time of day, get two folders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def unique_folder(wanted: Path) -> Iterator[Path]:
    """Make a new folder: `wanted`, or if that exists `wanted-2`, `wanted-3` and so on.

    The folder is removed again if the block fails and has left it empty.
    """
    above = [place for place in wanted.parents if not place.exists()]  # the innermost first
    folder = _make(wanted)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # a folder that is not empty stays, and so do those above it
            for place in (folder, *above):
                place.rmdir()
        raise


def _make(wanted: Path) -> Path:
    wanted.parent.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([wanted.name], (f"{wanted.name}-{number}" for number in itertools.count(2)))
    for folder in map(wanted.with_name, names):
        with suppress(FileExistsError):
            folder.mkdir()  # only one of several processes succeeds
            break
    return folder
