"""Holds imports to the layers: no circle between files, and no package that imports one of a layer above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import embfit

PACKAGE = Path(embfit.__file__).parent

LAYERS = (
    {
        "device_transfer",
        "errors",
        "graceful_stop",
        "suggestions",
        "text_digests",
        "type_hints",
        "random_streams",
        "version",
    },
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
"""Packages, from the bottom up. Each imports itself and those below; those of one layer do not import each other."""


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


def package_of(module: str) -> str:
    """Return the package of a module: the folder or file that stands directly in `embfit/`."""
    return [*module.split("."), "__init__"][1]


def test_no_circle_between_files() -> None:
    modules = files()
    try:
        TopologicalSorter({name: set(imports(path, modules)) for name, path in modules.items()}).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from error


def test_no_package_imports_one_of_a_layer_above_it() -> None:
    modules = files()
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    upwards = [
        f"{name} imports {other}"
        for name, path in modules.items()
        for other in imports(path, modules)
        if package_of(name) != package_of(other) and layer[package_of(name)] <= layer[package_of(other)]
    ]
    assert upwards == []
