"""A folder of one's own: two processes that want one of the same name, such as the time of day, get two."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def unique_folder(wanted: Path) -> Iterator[Path]:
    """Make a folder that was not there before: `wanted`, else `wanted-2`, `wanted-3` and so on.

    What was made is removed again if the block fails and has put nothing into it.
    """
    above = [place for place in wanted.parents if not place.exists()]  # the nearest one first
    folder = _make(wanted)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # the first that is not empty stays, and those above it
            for place in (folder, *above):
                place.rmdir()
        raise


def _make(wanted: Path) -> Path:
    wanted.parent.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([wanted.name], (f"{wanted.name}-{number}" for number in itertools.count(2)))
    for folder in map(wanted.with_name, names):
        with suppress(FileExistsError):
            folder.mkdir()  # of several processes one succeeds
            break
    return folder
