"""Checks a composed configuration against the code that it will call, before any data, weights or network are used.

It finds each `_target_`, and compares the keys with the callable's parameters and the values with their type hints.
`rules` compares the groups with each other, and the objects may refuse their arguments. All errors are reported
together, each with the place where it was written. A rule is skipped if a value that it needs is wrong, and no object
is made of a group with an error.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from embfit.compose.build import GIVEN, make
from embfit.compose.group_packages import REWRITTEN, lives_in, owned_elsewhere, packages_of
from embfit.compose.problems import Problem, refuse
from embfit.compose.renamed_keys import new_name
from embfit.compose.rules import RULES, locations_are_there
from embfit.compose.search_path import packs
from embfit.compose.targets import MissingTargetError, Target, find_target
from embfit.compose.value_origins import COMMAND_LINE, Origins, leaves
from embfit.compose.values import complaint
from embfit.errors import ConfigError
from embfit.suggestions import suggestion

MISSING = "???"
HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")
MAY_BE_EMPTY = ("logger",)  # `~logger.tensorboard` leaves none
AGAIN = ("evaluation",)  # where a group is chosen a second time: generator@evaluation
CALLED_LATER = ("trainer", "logger", "store")  # Lightning's classes are slow to import, and the store makes a folder
TOP_LEVEL: Mapping[str, Any] = {
    "seed": Annotated[int, Field(ge=0)],
    "query": str | None,
    "tuned": str | None,
    "resume": str | None,
    "run.dir": str,
    "run.sweep": str | None,
}
CONTEXT = (*GIVEN, "store", *TOP_LEVEL)  # what a task may name beside groups


def check(values: Mapping[str, Any], origins: Origins, groups: Iterable[str], raw: DictConfig | None = None) -> None:
    """Check a whole configuration.

    A file that is not there is said before other groups' code is imported, where the user wrote nothing else that could
    be wrong.

    Args:
        values: the resolved configuration.
        origins: where each of its leaves was written.
        groups: the names of the groups that exist.
        raw: the configuration before interpolations were resolved, so that a wrong value is reported where it stands
            and not where it is used.

    Raises:
        ConfigError: one line per problem.
    """
    known = set(groups)
    lost = _once(_lost(values, origins), origins, raw)
    if lost and lost.keys() >= set(_written_by_user(origins)):
        refuse(lost.values())
    by_types = [*_each(values, known), *_task(values, known)]
    by_rules = list(_broken_rules(values, {problem.key for problem in by_types}))
    wrong = {problem.key.split(".")[0] for problem in (*by_types, *by_rules)}
    refuse([*_once([*by_types, *by_rules], origins, raw).values(), *_refusals(values, origins, wrong)])


def check_keys(values: Mapping[str, Any], origins: Origins, groups: Iterable[str]) -> None:
    """Check keys and values alone, where some are written elsewhere than the choice that they are for.

    Elsewhere they are the choice's own, and no code is imported, which would take a while.

    Raises:
        ConfigError: one line per problem.
    """
    if any(origins.is_foreign(key) for key in origins if key not in TOP_LEVEL):
        refuse(_once(_each(values, set(groups)), origins, None).values())


def check_group(values: Mapping[str, Any], group: str, origins: Origins) -> None:
    """Check one group alone.

    Raises:
        ConfigError: one line per problem.
    """
    refuse(_once(_walk(values[group], group, group, (*packages_of(group), *packs())), origins, None).values())


def wrong_values(values: Mapping[str, Any], origins: Origins, groups: Iterable[str]) -> Iterator[Problem]:
    """Yield what is wrong with the keys and values of a command line, whatever else is."""
    for problem in _once(_each(values, set(groups)), origins, None).values():
        if problem.place == COMMAND_LINE:
            yield problem


def _each(values: Mapping[str, Any], groups: set[str]) -> Iterator[Problem]:
    """Check what stands at the top, and each group by itself."""
    yield from _top_level(values, groups)
    installed = packs()
    for group, node in values.items():
        if isinstance(node, Mapping):
            yield from _walk(node, group, group, (*packages_of(group), *installed))


def _top_level(values: Mapping[str, Any], groups: set[str]) -> Iterator[Problem]:
    ours = {key.split(".")[0] for key in TOP_LEVEL} | {"store", *AGAIN}
    for key in values:
        if key not in groups | ours:
            yield Problem(key, f"no such group or key{suggestion(key, groups | ours)}")
        elif key in groups and values[key] is not None and not _has_target(values[key]) and key not in MAY_BE_EMPTY:
            hint = "" if key != "experiment" else "; its file begins with: # @package _global_"
            yield Problem(key, f"sets nothing, since it has no _target_{hint}")
    for path, hint in TOP_LEVEL.items():
        value: Any = values
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if message := complaint(value, hint):
            yield Problem(path, message)


def _walk(node: Any, path: str, group: str, packages: Sequence[str]) -> Iterator[Problem]:
    """Check all targets at and below a node."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield from _node(node, path, group, packages)
        for key, value in node.items():
            yield from _walk(value, f"{path}.{key}", group, packages)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(value, f"{path}[{index}]", group, packages)


def _node(node: Mapping[str, Any], path: str, group: str, packages: Sequence[str]) -> Iterator[Problem]:
    try:
        target = find_target(str(node["_target_"]))
    except MissingTargetError as error:
        yield Problem(f"{path}._target_", str(error))
        return
    if not lives_in(target.module, packages):
        yield Problem(
            f"{path}._target_",
            f"{target.name} is code of {target.module}; {group} may name {' or '.join(packages_of(group))}, "
            "or an installed config pack's own code",
        )
        return
    yield from _keys(node, path, group, target)


def _keys(node: Mapping[str, Any], path: str, group: str, target: Target) -> Iterator[Problem]:
    hints = {**target.hints, **(REWRITTEN.get(group, {}) if path == group else {})}
    for key, value in node.items():
        if knob := owned_elsewhere(f"{path}.{key}"):
            yield Problem(f"{path}.{key}", knob)
        elif key in HYDRA_KEYS or value == MISSING:
            continue
        elif key in target.parameters:
            if message := _value(value, hints[key]):
                yield Problem(f"{path}.{key}", message)
        elif not target.open_ended or key == "_args_":
            wrong = new_name(f"{path}.{key}") or f"{target.name} has no '{key}'{suggestion(key, target.parameters)}"
            yield Problem(f"{path}.{key}", wrong)
    if not node.get("_partial_"):
        for key in target.required:
            if key not in node:
                yield Problem(f"{path}.{key}", f"{target.name} needs it; set {path}.{key}=...")


def _value(value: Any, hint: Any) -> str | None:
    if not _has_target(value):
        return complaint(value, hint)
    if isinstance(value, Mapping) and inspect.isclass(hint) and not value.get("_partial_"):
        try:
            call = find_target(str(value.get("_target_", ""))).call
        except MissingTargetError:
            return None  # reported at the node itself
        if inspect.isclass(call) and not getattr(hint, "_is_protocol", False) and not issubclass(call, hint):
            return f"expected a {hint.__name__}, got a {call.__name__}"
    return None


def _has_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(_has_target(item) for item in value.values())
    return isinstance(value, list) and any(_has_target(item) for item in value)


def _task(values: Mapping[str, Any], groups: set[str]) -> Iterator[Problem]:
    """Check that the task finds all that it names, and that nothing there is still to be given."""
    node = values.get("task")
    if not isinstance(node, Mapping) or "_target_" not in node:
        yield Problem("task", "names no task; set task=finetune")
        return
    try:
        target = find_target(str(node["_target_"]))
    except MissingTargetError:
        return
    used = ["task"]
    for name in target.parameters:
        if name in node or name in CONTEXT:
            continue
        if name in groups:
            used.append(name)
        if values.get(name) is None and name in target.required:
            yield Problem(name, f"the task needs it; choose one: {name}=...")
    for path, value in leaves(values):
        if value == MISSING and path.split(".")[0] in used:
            yield Problem(path, f"must be given: {path}=...")


def _lost(values: Mapping[str, Any], origins: Origins) -> Iterator[Problem]:
    """Look for the files that a user names, in the groups that the user wrote to."""
    named = {key.split(".")[0] for key in _written_by_user(origins)}
    yield from locations_are_there({group: node for group, node in values.items() if group in named})


def _written_by_user(origins: Origins) -> Iterator[str]:
    """Yield the keys whose value is not as embfit's own files have it; those are known to be right."""
    return (key for key, place in origins.items() if not place.startswith("conf/"))


def _broken_rules(values: Mapping[str, Any], wrong: set[str]) -> Iterator[Problem]:
    """Ask the rules, which trust the types: one that comes upon a value of a wrong type has nothing to say."""
    typed = _replaced(values, wrong, "")
    for rule in RULES:
        try:
            yield from rule(typed)
        except (TypeError, AttributeError, ValueError, KeyError):
            if not wrong:
                raise


class _Wrong:
    """Stands for a value of a wrong type: it is not null, equals nothing and cannot be compared."""


def _replaced(node: Any, wrong: set[str], path: str) -> Any:
    """Return values in which those at the wrong keys are `_Wrong`."""
    if path in wrong:
        return _Wrong()
    if not isinstance(node, Mapping):
        return node
    return {key: _replaced(value, wrong, f"{path}.{key}" if path else str(key)) for key, value in node.items()}


def _refusals(values: Mapping[str, Any], origins: Origins, wrong: set[str]) -> Iterator[str]:
    """Make what the task will use, which is light, for what it says about its own values.

    Args:
        values: the resolved configuration.
        origins: where each of its leaves was written.
        wrong: the groups in which something is wrong already.
    """
    try:
        task = find_target(str((values.get("task") or {}).get("_target_", "")))
    except MissingTargetError:
        return  # reported at the node itself
    for name in task.parameters:
        if name in values and name not in {*CALLED_LATER, *wrong}:
            try:
                make(values[name], name)
            except ConfigError as error:
                # `loss: temperature=0 …`, `evaluator.metrics: …`, `miner.depth=3 …`: whose value is it?
                said = re.match(r"([\w.]+)(?:: (\w*)|=)", str(error))
                place = origins.find(".".join(filter(None, said.groups())) if said else name)
                yield f"{error} ({place})" if place else str(error)


def _once(problems: Iterable[Problem], origins: Origins, raw: DictConfig | None) -> dict[str, Problem]:
    """Return what is wrong with its place, once per key: one `seed=abc` is wrong wherever `${seed}` goes."""
    placed: dict[str, Problem] = {}
    for problem in problems:
        found = _placed(problem, origins, raw)
        placed.setdefault(found.key, found)
    return placed


def _placed(problem: Problem, origins: Origins, raw: DictConfig | None) -> Problem:
    """Add where the value was written; a value taken from another key (`${seed}`) is that key's problem."""
    key = problem.key
    while raw is not None and (source := _reference(raw, key)):
        key = source
    return Problem(key, problem.message, origins.find(key))


def _reference(raw: DictConfig, key: str) -> str | None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(raw, parent) if parent else raw
    if "[" in key or not isinstance(node, DictConfig) or name not in node or not OmegaConf.is_interpolation(node, name):
        return None
    written = OmegaConf.to_container(node, resolve=False)
    assert isinstance(written, dict)
    text = str(written[name])
    inside = text.removeprefix("${").removesuffix("}")
    return inside if text == f"${{{inside}}}" and inside.replace(".", "_").isidentifier() else None
