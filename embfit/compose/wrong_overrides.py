"""Explains wrong overrides of a command line: invalid syntax, and choices that do not exist."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote
from hydra.errors import HydraException
from hydra.types import RunMode

from embfit.compose.command_line import COMMANDS, quoted
from embfit.compose.defaults_list import listed, resolved
from embfit.compose.loader import CONFIG, REFUSALS, Loader
from embfit.compose.problems import Problem
from embfit.compose.renamed_keys import new_name
from embfit.compose.value_origins import COMMAND_LINE
from embfit.compose.wrong_keys import key_problems
from embfit.suggestions import nearest, suggestion

SEVERAL = ("experiment", "logger")  # groups that allow several choices; in others they would be merged


def problems_of(loader: Loader, overrides: Sequence[str], multirun: bool) -> tuple[list[Problem], list[str], bool]:
    """Find the problems of overrides: first of the groups' choices, then of the keys, which depend on the choices.

    Returns:
        The problems; the overrides without a problem, which compose, if some of them set values, else none; and whether
        all choices are right. Keys of a group with a wrong choice are left out, since the right choice may have other
        keys.
    """
    problems: list[Problem] = []
    unknown: set[str] = set()  # groups whose choice is wrong
    sound: list[str] = []  # group choices that exist
    keys: list[Override] = []
    nested: list[Override] = []
    for text in loader.normal(overrides):
        try:
            override = OverridesParser.create(loader).parse_override(text)
        except HydraException:
            problems.append(_unreadable(text, loader.choices("task")))
            continue
        if not override.key_or_group:
            problems.append(_unreadable(text, loader.choices("task")))
            continue
        if override.is_sweep_override() and not multirun:
            problems.append(_several_values(override))
        elif override.is_hydra_override():
            sound.append(text)
        elif not loader.repository.group_exists(override.key_or_group) or sets_keys(override):
            keys.append(override)
        elif found := _choice_problems(loader, override):
            problems += found
            unknown.add(override.key_or_group)
        elif override.package is not None and not override.is_add():
            nested.append(override)
        elif not override.is_sweep_override():
            sound.append(text)
    try:
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        config = loader.load_configuration(CONFIG, sound, run_mode=mode)
        there = [override for override in nested if override.get_key_element() in config.hydra.runtime.choices]
        problems += [_nowhere(loader, override) for override in nested if override not in there]
        if chosen := [str(override.input_line) for override in there if not override.is_sweep_override()]:
            config = loader.load_configuration(CONFIG, [*sound, *chosen], run_mode=mode)
    except REFUSALS:
        return problems, [], False  # the choices do not compose; Hydra's message gives the reason
    values = []
    for override in keys:
        if found := key_problems(loader, config, override):
            problems += found
        elif override.key_or_group.split(".")[0] not in unknown:
            values.append(str(override.input_line))
    return problems, [*sound, *chosen, *values] if values else [], not unknown


def _unreadable(text: str, tasks: Sequence[str]) -> Problem:
    key, equals, value = text.partition("=")
    if not equals:
        meant = nearest(text, [*COMMANDS, *tasks])
        kind = "command" if meant in COMMANDS else "task"
        hint = f"; did you mean the {kind} '{meant}', as the first word?" if meant else ""
        return Problem(text or "''", f"expected KEY=VALUE{hint}", COMMAND_LINE)
    if not key.strip("+~"):
        return Problem(text, "has no key; expected KEY=VALUE", COMMAND_LINE)
    typed = f"{key}={shlex.quote(quoted(value, Quote.double))}"
    return Problem(key, f"cannot read the value {value}; quote it: {typed}", COMMAND_LINE)


def _several_values(override: Override) -> Problem:
    message = "several values need -m, which runs one job for each; write a list as [a,b]"
    return Problem(str(override.input_line), message, COMMAND_LINE)


def sets_keys(override: Override) -> bool:
    """Return whether an override of a group sets its keys instead of choosing (`model={depth: 3}`)."""
    return not override.is_sweep_override() and isinstance(override.value(), dict)


def chosen_names(override: Override) -> list[str]:
    """Return the choices in an override of a group."""
    if override.is_delete():
        return []
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_iterator()] if override.is_discrete_sweep() else []
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _choice_problems(loader: Loader, override: Override) -> list[Problem]:
    group, known = override.key_or_group, loader.choices(override.key_or_group)
    wrong = [name for name in chosen_names(override) if name not in known and name != "null"]
    if not wrong and override.package is None and not override.is_add() and group not in (groups := loader.defaults()):
        message = f"is not a group of embfit's; one of your own needs a plus: +{group}=NAME{suggestion(group, groups)}"
        return [Problem(group, message, COMMAND_LINE)]
    element = override.get_key_element()
    if not wrong and group in loader.defaults() and group not in SEVERAL and len(_merged(override)) > 1:
        return [several_choices(element, _merged(override), COMMAND_LINE)]
    return [
        Problem(
            f"{element}={name}", new_name(f"{group}={name}") or f"no such choice{suggestion(name, known)}", COMMAND_LINE
        )
        for name in wrong
    ]


def _merged(override: Override) -> list[str]:
    return [] if override.is_sweep_override() else chosen_names(override)


def several_choices(element: str, names: Sequence[str], place: str) -> Problem:
    """Return the message for several choices where only one is possible.

    Args:
        element: the group, with `@PLACE` where it is nested.
        names: the choices.
        place: where they were written.
    """
    group, each = element.partition("@")[0], ",".join(names)
    message = f"{group} takes one choice; -m {element}={each} runs one job for each"
    return Problem(f"{element}=[{each}]", message, place)


def _nowhere(loader: Loader, override: Override) -> Problem:
    """Return the message for a choice at a place that does not exist, and name what has such a place."""
    element, group, package = override.get_key_element(), override.key_or_group, str(override.package)
    top, _, inside = package.partition(".")
    around = [
        f"{top}={name}"
        for name in (loader.choices(top) if top in loader.groups() else ())
        if (file := loader.file(f"{top}/{name}")) is not None
        and any(entry.package == inside and resolved(top, entry.group) == group for entry in listed(file))
    ]
    names = ",".join(chosen_names(override))
    remedy = f"add {' or '.join(around)}" if around else f"write {group}={names}"
    return Problem(f"{element}={names}", f"no {group} is chosen at {package}; {remedy}", COMMAND_LINE)
