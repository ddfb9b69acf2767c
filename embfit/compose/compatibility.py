"""Checks the chosen classes against the task's type hints: for example, whether the model fits the training.

A hint may be a class, a runtime-checkable protocol or a union of these, with annotations of `embfit.type_hints`. An
object of unknown class, such as the result of a function without a return type, is accepted.
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
    """Yield the groups whose chosen classes the task does not accept, alone or together."""
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
    """Return the code that a node names; None if it names none, or none that exists."""
    try:
        return find_target(str(node["_target_"])) if isinstance(node, Mapping) and "_target_" in node else None
    except MissingTargetError:
        return None  # the preflight reports it at the node


def accepts(hint: Any, kind: type) -> bool:
    """Return whether a type hint accepts objects of a class."""
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
        return True  # a protocol that is not runtime-checkable


def marks(hint: Any, mark: type[Mark]) -> list[Mark]:
    """Return the annotations of one kind on a hint."""
    return [found for found in getattr(hint, "__metadata__", ()) if isinstance(found, mark)]


def _fit_together(task: Target, chosen: Mapping[str, type]) -> Iterator[Problem]:
    """Check the chosen classes against the first of the task's variants whose first parameter fits."""
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
    """Return what fits the deciding class, for a message; empty if the hints have no words for it."""
    said = [mark.words for wanted in (first, hint) for mark in marks(wanted, ChosenBy)]
    return f"{said[0]} needs {said[1]}" if len(said) == 2 else ""


def _misplaced(first: str, others: list[Mapping[str, Any]], kind: type) -> str:
    """Return what a class is for, if it does not fit the other choices."""
    said = [mark.words for hints in others for mark in marks(hints.get(first), ChosenBy)]
    return f"is for {said[0]}; choose another one" if said else f"a {kind.__name__} does not go with this {first}"


def _refusal(task: Target, name: str, kind: type) -> str:
    named = task.name.rpartition(".")[2]
    said = [mark.words for mark in marks(task.hints[name], ChosenBy)]
    taken = said[0] if said else f"a {_names(task.hints[name])}"
    return f"task={named} takes {taken}, and {kind.__name__} is not one; choose another {name}"


def _names(hint: Any) -> str:
    """Return the names of the classes of a hint."""
    if get_origin(hint) is Annotated:
        return _names(get_args(hint)[0])
    return " or ".join(map(_names, get_args(hint))) if get_origin(hint) else str(getattr(hint, "__name__", hint))


def _class_at(node: Any) -> type | None:
    """Return the class of the object that a node describes; None if it is made later, or is not known."""
    target = target_at(node)
    if target is None or node.get("_partial_"):
        return None
    made = target.call if inspect.isclass(target.call) else type_hints(target.call).get("return")
    return made if inspect.isclass(made) else None
