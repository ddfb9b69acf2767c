"""Holds imports to the house: no circle between files, and no room that imports a room above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import embfit

PACKAGE = Path(embfit.__file__).parent

FLOORS = (
    {"device_transfer", "errors", "hints", "nearest", "text_digests", "random_streams", "version"},
    {"maxsim", "ragged"},
    {"vectors"},
    {"atomic_files", "records", "progress", "http_requests"},
    {"credentials", "object_storage"},
    {"store"},
    {"compose"},
    {"run"},
    {"cluster"},
    {"data", "logger", "loss", "style", "tokens"},
    {"index"},
    {"model"},
    {"evaluator", "generator", "miner"},
    {"training", "bundle"},
    {"report", "server", "teacher"},
    {"assess", "launcher", "review"},
    {"sweep"},
    {"task", "command"},
    {"app"},
    {"__main__", "__init__"},
)
"""Rooms, from the ground up. A room imports itself and rooms below it; those of one floor do not import each other."""


def files() -> dict[str, Path]:
    """Return the files of the package by module name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(["embfit", *parts]).removesuffix(".__init__")] = path
    return found


def imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of embfit that a file imports anywhere, for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [full if (full := f"{node.module}.{name}") in modules else str(node.module) for name in names]
        yield from (name for name in names if name in modules)


def room(module: str) -> str:
    """Return the room of a module: the folder or file that stands directly in the package."""
    return [*module.split("."), "__init__"][1]


def test_no_circle_between_files() -> None:
    modules = files()
    try:
        TopologicalSorter({name: set(imports(path, modules)) for name, path in modules.items()}).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from error


def test_no_room_imports_a_room_above_it() -> None:
    modules = files()
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    upwards = [
        f"{name} imports {other}"
        for name, path in modules.items()
        for other in imports(path, modules)
        if room(name) != room(other) and floor[room(name)] <= floor[room(other)]
    ]
    assert upwards == []
