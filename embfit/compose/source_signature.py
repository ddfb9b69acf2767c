"""Reads a class's parameters from its source file, if importing it would take longer than the rest of the start.

Importing Lightning imports torchmetrics, which imports transformers' models: eight seconds of processor time where
`import torch` takes three, before a wrong value could be reported. So values for Lightning's classes are checked
against the signatures in the source (a test compares them with `inspect`), and the classes are imported when they are
called. A class that cannot be read in this way is imported: the result is the same, only slower.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOW = ("pytorch_lightning", "lightning_fabric")
"""Packages that are read and not imported."""

Parameters = dict[str, inspect.Parameter]


@dataclass(frozen=True)
class ClassSource:
    """A class, as read from its source.

    Args:
        module: the module that defines it.
        parameters: the constructor's parameters, in order, without `self`.
        hints: the type hint of each parameter; classes of Lightning's own are stand-ins of the same name.
    """

    module: str
    parameters: Parameters
    hints: Mapping[str, Any]


class ImportedWhenCalled:
    """A placeholder for a class, which imports it when called.

    Args:
        name: the class's dotted name, as a YAML writes it.
        module: the module that defines it.
    """

    def __init__(self, name: str, module: str) -> None:
        self.__name__ = name.rpartition(".")[2]
        self.__module__ = module
        self._name = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Import the class and call it."""
        module, _, name = self._name.rpartition(".")
        return getattr(importlib.import_module(module), name)(*arguments, **named)


def is_slow(name: str) -> bool:
    """Return whether a dotted name is in a slow package that has not been imported yet."""
    package = name.partition(".")[0]
    return package in SLOW and package not in sys.modules


@functools.cache
def read_class(name: str) -> ClassSource | None:
    """Read a class from its source; None if the name is not a class whose constructor can be read."""
    place, _, last = name.rpartition(".")
    module = _read_module(place)
    found = module.find(last) if module is not None else None
    if found is None:
        return None
    home, node = found
    if not isinstance(node, ast.ClassDef):
        return None
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    constructor = next((method for method in methods if method.name == "__init__"), None)
    if constructor is None:
        return None
    try:
        hints = {
            argument.arg: home.evaluate(argument.annotation) if argument.annotation else Any
            for argument in _arguments(constructor)
        }
    except (NameError, TypeError, AttributeError):
        return None
    return ClassSource(home.name, _parameters(constructor, hints), hints)


class _Module(dict[str, Any]):
    """The names of a module that is not imported; a name is looked up when an annotation uses it."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        super().__init__()
        self.name = name
        self._statements = tree.body

    def find(self, name: str) -> tuple[_Module, ast.stmt] | None:
        """Return the statement that defines a name, and its module."""
        for statement in self._statements:
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return self, statement
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == name for target in statement.targets
            ):
                return self, statement
            if isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        other = _read_module(statement.module)
                        return other.find(alias.name) if other is not None else (self, statement)
        return None

    def evaluate(self, annotation: ast.expr) -> Any:
        """Return the type of an annotation."""
        code = compile(ast.Expression(annotation), self.name, "eval")
        found = eval(
            code, {"__builtins__": {}}, self
        )  # this evaluates installed code, which an import would run as well
        return typing.ForwardRef(found) if isinstance(found, str) else found

    def __missing__(self, name: str) -> Any:
        """Return a type by its name: an alias, a class of another package, or a stand-in for an unknown one."""
        if hasattr(builtins, name):
            return getattr(builtins, name)
        found = self.find(name)
        if found is None:
            raise NameError(name)
        home, statement = found
        if isinstance(statement, ast.ClassDef):
            return type(statement.name, (), {"__module__": home.name})
        if isinstance(statement, ast.Assign):
            return home.evaluate(statement.value)
        assert isinstance(statement, ast.ImportFrom)
        return getattr(importlib.import_module(str(statement.module)), name)


@functools.cache
def _read_module(name: str) -> _Module | None:
    """Parse the source of a slow package's module; None for any other module."""
    package, *parts = name.split(".")
    if package not in SLOW:
        return None
    spec = importlib.util.find_spec(package)  # a top-level package is found without importing it
    for root in (spec.submodule_search_locations if spec else None) or ():
        path = Path(root).joinpath(*parts)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return _Module(name, ast.parse(file.read_text(encoding="utf-8")))
    return None


def _arguments(function: ast.FunctionDef) -> Iterator[ast.arg]:
    given = function.args
    yield from [*given.posonlyargs, *given.args][1:]
    yield from given.kwonlyargs


def _parameters(function: ast.FunctionDef, hints: Mapping[str, Any]) -> Parameters:
    given = function.args
    positional = [argument.arg for argument in [*given.posonlyargs, *given.args]]
    defaults = dict(zip(reversed(positional), reversed(given.defaults), strict=False))
    named = [argument.arg for argument in given.kwonlyargs]
    defaults |= {name: value for name, value in zip(named, given.kw_defaults, strict=True) if value is not None}
    found = {}
    for name, hint in hints.items():
        kind = inspect.Parameter.KEYWORD_ONLY if name in named else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = _default(defaults[name]) if name in defaults else inspect.Parameter.empty
        found[name] = inspect.Parameter(name, kind, default=default, annotation=hint)
    if given.kwarg is not None:
        found[given.kwarg.arg] = inspect.Parameter(given.kwarg.arg, inspect.Parameter.VAR_KEYWORD)
    return found


def _default(written: ast.expr) -> Any:
    """Return a default value; as text if it is not a constant."""
    try:
        return ast.literal_eval(written)
    except ValueError:
        return ast.unparse(written)
