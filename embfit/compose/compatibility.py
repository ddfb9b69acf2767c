"""Holds the classes that were chosen for a task to the task's own type hints: does this model go with this training?

A hint may be a class, a protocol that can be checked, a union of those, and bear the marks of `embfit.type_hints`. What
has no class, such as a function without a return type, is taken on trust.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from embfit.compose.problems import Problem
from embfit.compose.targets import MissingTargetError, Target, find_target, type_hints
from embfit.compose.tasks import declaration
from embfit.type_hints import ChosenBy, Having

Mark = TypeVar("Mark")


def groups_fit_task(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the groups whose chosen classes the task does not take, or not together."""
    task = target_at(values.get("task"))
    if task is None:
        return
    chosen = {name: kind for name in task.hints if (kind := _class_at(values.get(name))) is not None}
    unfit = {name: kind for name, kind in chosen.items() if not accepts(task.hints[name], kind)}
    for name, kind in unfit.items():
        yield Problem(name, getattr(kind, "only_for", None) or _refusal(task, name, kind))
    if not unfit:
        yield from _fit_together(task, chosen)


def target_at(node: Any) -> Target | None:
    """Return the code that a node names; None where it names none, or what is not there."""
    try:
        return find_target(str(node["_target_"])) if isinstance(node, Mapping) and "_target_" in node else None
    except MissingTargetError:
        return None  # reported at the node itself


def accepts(hint: Any, kind: type) -> bool:
    """Say whether a type hint takes objects of a class."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        having = marks(hint, Having)
        fits = all(bool(getattr(kind, mark.attribute, False)) is mark.value for mark in having)
        return fits and accepts(arguments[0], kind)
    if origin in (Union, types.UnionType):
        return any(accepts(argument, kind) for argument in arguments)
    try:
        return hint is Any or not inspect.isclass(hint) or issubclass(kind, hint)
    except TypeError:
        return True  # a protocol that is not for checks at run time


def marks(hint: Any, mark: type[Mark]) -> list[Mark]:
    """Return the marks of one kind that a hint bears."""
    return [found for found in getattr(hint, "__metadata__", ()) if isinstance(found, mark)]


def _fit_together(task: Target, chosen: Mapping[str, type]) -> Iterator[Problem]:
    """Hold what was chosen to the first of the task's variants that takes the class it begins with."""
    variants = [type_hints(variant) for variant in declaration(task.name).variants]
    for hints in variants:
        first = next(iter(hints))
        if first not in chosen or not accepts(hints[first], chosen[first]):
            continue
        for name, kind in chosen.items():
            if name in hints and not accepts(hints[name], kind):
                others = [other for other in variants if name in other and accepts(other[name], kind)]
                yield Problem(name, _wanted(hints[first], hints[name]) or _misplaced(first, others, kind))
        return


def _wanted(first: Any, hint: Any) -> str:
    """Say what goes with the class that decides; nothing where the hints bear no words for it."""
    said = [mark.words for wanted in (first, hint) for mark in marks(wanted, ChosenBy)]
    return f"{said[0]} needs {said[1]}" if len(said) == 2 else ""


def _misplaced(first: str, others: list[Mapping[str, Any]], kind: type) -> str:
    """Say what a class is for, when it is not for what it was chosen with."""
    said = [mark.words for hints in others for mark in marks(hints.get(first), ChosenBy)]
    return f"is for {said[0]}; choose another one" if said else f"a {kind.__name__} does not go with this {first}"


def _refusal(task: Target, name: str, kind: type) -> str:
    named = task.name.rpartition(".")[2]
    said = [mark.words for mark in marks(task.hints[name], ChosenBy)]
    taken = said[0] if said else f"a {_names(task.hints[name])}"
    return f"task={named} takes {taken}, and {kind.__name__} is not one; choose another {name}"


def _names(hint: Any) -> str:
    """Name the classes of a hint."""
    if get_origin(hint) is Annotated:
        return _names(get_args(hint)[0])
    return " or ".join(map(_names, get_args(hint))) if get_origin(hint) else str(getattr(hint, "__name__", hint))


def _class_at(node: Any) -> type | None:
    """Return the class of the object that a node describes; None where it is called later, or is not known."""
    target = target_at(node)
    if target is None or node.get("_partial_"):
        return None
    made = target.call if inspect.isclass(target.call) else type_hints(target.call).get("return")
    return made if inspect.isclass(made) else None
