"""Finds the code that a `_target_` names, with its parameters and their type hints."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import traceback
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from embfit.compose.source_signature import ImportedWhenCalled, is_slow, read_class
from embfit.suggestions import suggestion

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class MissingTargetError(Exception):
    """A `_target_` names nothing that can be called; the message says which part of the name is wrong."""


@dataclass(frozen=True)
class Target:
    """Something that a YAML can call.

    Args:
        name: the name that the YAML writes.
        call: the class or function, or a placeholder that imports it when called.
        parameters: the parameters that can be given by name.
        hints: the type hint of each parameter, which is `Any` where there is none.
        open_ended: whether it accepts any other keyword (`**kwargs`).
    """

    name: str
    call: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    hints: Mapping[str, Any]
    open_ended: bool

    @property
    def module(self) -> str:
        """The module that defines the object, which may differ from the one in its name."""
        return str(getattr(self.call, "__module__", None) or type(self.call).__module__)

    @property
    def required(self) -> list[str]:
        """The names of the parameters without a default."""
        return [name for name, parameter in self.parameters.items() if parameter.default is parameter.empty]


def find_target(name: str) -> Target:
    """Find the code that a `_target_` names, by importing it, or by reading its source if the import is slow.

    Raises:
        MissingTargetError: it does not exist, cannot be imported, or cannot be called.
    """
    if is_slow(name) and (source := read_class(name)) is not None:
        return _target(name, ImportedWhenCalled(name, source.module), source.parameters, source.hints)
    call = _locate(name)
    if not callable(call):
        raise MissingTargetError(f"{name} is a {type(call).__name__}, which cannot be called")
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):  # some built-ins have no signature
        return Target(name, call, {}, {}, open_ended=True)
    return _target(name, call, parameters, type_hints(call))


def _target(
    name: str, call: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
) -> Target:
    named = {key: parameter for key, parameter in parameters.items() if parameter.kind in NAMED}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return Target(name, call, named, {key: hints.get(key, Any) for key in named}, open_ended)


def type_hints(call: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the type hints of a callable's parameters, without those that cannot be evaluated."""
    return _type_hints(call) if isinstance(call, Hashable) else _type_hints.__wrapped__(call)


@lru_cache(maxsize=1024)
def _type_hints(call: Callable[..., Any]) -> Mapping[str, Any]:
    function = call.__init__ if inspect.isclass(call) else call
    function = inspect.unwrap(function)
    # the hints of inherited dataclass fields may use names of another module
    described = call if dataclasses.is_dataclass(call) else function
    try:
        return typing.get_type_hints(described, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {
            name: hint
            for name, text in getattr(function, "__annotations__", {}).items()
            if (hint := _evaluated(text, getattr(function, "__globals__", {}))) is not None
        }


def _evaluated(text: Any, names: dict[str, Any]) -> Any:
    try:
        return eval(text, names) if isinstance(text, str) else text  # an annotation, which is installed code
    except (NameError, TypeError, AttributeError):
        return None


def _locate(name: str) -> Any:
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        raise MissingTargetError(f"'{name}' is not the dotted name of a class or function")
    found: Any = _module(parts[0], name)
    for depth, part in enumerate(parts[1:], start=1):
        if not hasattr(found, part) and isinstance(found, ModuleType) and hasattr(found, "__path__"):
            found = _module(".".join(parts[: depth + 1]), name, found)
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            raise MissingTargetError(_no_such(found, ".".join(parts[:depth]), part))
    return found


def _module(path: str, name: str, parent: ModuleType | None = None) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise MissingTargetError(f"{name} needs the package {error.name}, which is not installed") from error
        above, _, last = path.rpartition(".")
        raise MissingTargetError(_no_such(parent, above, last) if parent else f"there is no module {path}") from error
    except Exception as error:  # importing runs other people's code, which may fail in any way
        raise MissingTargetError(f"{name} cannot be imported: {_told(error)}") from error


def _told(error: Exception) -> str:
    """Return the error of an import, with its line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    first = (str(error).splitlines() or [""])[0]
    return f"{last.filename}:{last.lineno}: {type(error).__name__}" + (f": {first}" if first else "")


def _no_such(found: Any, path: str, part: str) -> str:
    public = [name for name in dir(found) if not name.startswith("_")]
    return f"{path} has no '{part}'{suggestion(part, public)}"
