"""Where the Python files of a package, the standard library or a codebase are, and what their modules are called."""

from __future__ import annotations

import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from embfit.errors import UserError

_ELSEWHERE = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages", "dist-packages", "venv"})
_TESTS = frozenset({"test", "tests", "testing", "_testing"})
_TEST_FILE = re.compile(r"test_.*|.*_test")
# Large parts of the standard library that some distributions leave out, that Python 3.12 removed, that belong to
# another program, or that were generated. Without them every machine with the same Python gives the same pairs.
_STDLIB_EXTRAS = frozenset(
    {"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo"}
)


class PythonFile(NamedTuple):
    """A Python file and the dotted name of its module."""

    path: Path
    module: str


def stdlib_files() -> Iterator[PythonFile]:
    """Yield the files of the running Python's standard library."""
    yield from folder_files(Path(sysconfig.get_path("stdlib")), skip=_STDLIB_EXTRAS)


def package_files(name: str) -> Iterator[PythonFile]:
    """Yield the files of an installed package or module, found without importing it.

    Raises:
        UserError: the package is not installed, or it has no Python files.
    """
    top, *inner = name.split(".")
    spec = importlib.util.find_spec(top) if top else None  # of a top-level name: finding `a.b` would import `a`
    if spec is None:
        raise UserError(f'the package "{name}" is not installed; install it, or remove it from data.packages')
    if spec.submodule_search_locations is None:
        if inner or not str(spec.origin).endswith(".py"):
            raise UserError(f'"{name}" is not a package with Python files; remove it from data.packages')
        yield PythonFile(Path(str(spec.origin)), top)
        return
    folder = Path(next(iter(spec.submodule_search_locations)), *inner)
    if not folder.is_dir():
        raise UserError(f'the package "{top}" has no sub-package "{".".join(inner)}"; correct data.packages')
    yield from folder_files(folder, prefix=name)


def folder_files(folder: Path, prefix: str = "", skip: frozenset[str] = frozenset()) -> Iterator[PythonFile]:
    """Yield the Python files below a folder, always in the same order; tests and third-party code are left out.

    Args:
        folder: the folder to search.
        prefix: the dotted name of the package that the folder is; empty if the folder is no package.
        skip: further names of folders and modules to leave out.
    """
    passed_over = _ELSEWHERE | _TESTS | skip
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in passed_over and not name.startswith("."))
        for file in sorted(files):
            path = Path(place, file)
            name = path.stem
            if path.suffix != ".py" or name in passed_over or name == "conftest" or _TEST_FILE.fullmatch(name):
                continue
            parts = [prefix, *path.relative_to(folder).parent.parts, name if name != "__init__" else ""]
            yield PythonFile(path, ".".join(filter(None, parts)) or folder.name)
