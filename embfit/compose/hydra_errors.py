"""Turns Hydra's refusal to compose into short messages that say what was meant.

Hydra stops at the first mistake, with advice that embfit's users never need (`To append to your config use +...`).
After a refusal the whole command line is looked at, so that every wrong group, choice and key is named at once.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embfit.compose import search_path
from embfit.compose.command_line import COMMANDS, quoted
from embfit.compose.defaults_list import listed, resolved, wrong_entries
from embfit.compose.loader import CONFIG, Loader
from embfit.compose.origins import COMMAND_LINE
from embfit.compose.preflight import TOP_LEVEL
from embfit.compose.problems import Problem, ProblemsError, refuse
from embfit.compose.renamed import new_name
from embfit.compose.rooms import owned_elsewhere
from embfit.errors import ConfigError
from embfit.nearest import nearest, suggestion

REFUSALS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AssertionError)

NEEDED = frozenset({"store", *TOP_LEVEL, *(key.split(".")[0] for key in TOP_LEVEL)})  # what other values are made of
SEVERAL = ("experiment", "logger")  # groups whose choices go together; those of others would merge into one

SPELLED_OUT = 3  # more choices than this are not


class WrongOverridesError(ProblemsError):
    """Overrides that do not compose.

    Args:
        lines: one for each problem.
        sound: the overrides that compose without those, if some of them give values; these may be wrong as well.
        choices_known: whether all groups have the choice that was meant, so that one can be held to another.
    """

    def __init__(self, lines: Iterable[str], sound: Sequence[str], choices_known: bool) -> None:
        super().__init__(lines)
        self.sound = tuple(sound)
        self.choices_known = choices_known


@contextmanager
def readable_errors(loader: Loader, overrides: Sequence[str], multirun: bool = False) -> Iterator[None]:
    """Raise a `ConfigError` of one line per mistake for whatever Hydra says while the block composes."""
    try:
        yield
    except REFUSALS as error:
        problems, sound, choices_known = _command_line(loader, overrides, multirun)
        if problems:
            raise WrongOverridesError(map(str, problems), sound, choices_known) from None
        refuse(wrong_entries(loader, _chosen(loader, overrides)))
        raise ConfigError(_condensed(loader, error)) from error


def suspicious(loader: Loader, overrides: Sequence[str]) -> Iterator[Problem]:
    """Say what Hydra composes and nobody means: a key that others hang on is left out, or choices merge into one."""
    parsed = OverridesParser.create(loader).parse_overrides(loader.normal(overrides))
    for override in parsed:
        yield from _deletion_problems(override)
    still = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    found = loader.compute_defaults_list(CONFIG, still, RunMode.RUN).overrides
    for element, names in found.override_choices.items():
        if isinstance(names, list) and element.partition("@")[0] in loader.defaults() and element not in SEVERAL:
            by = found.override_metadata[element]
            place = COMMAND_LINE if by.external_override else _entry(loader, str(by.containing_config_path), names)
            yield _several_choices(element, names, place)


def _command_line(loader: Loader, overrides: Sequence[str], multirun: bool) -> tuple[list[Problem], list[str], bool]:
    """Say what is wrong with the overrides, group choices before the keys that hang on them.

    Returns:
        The problems; the overrides that compose without those that have one, of which a key of a group whose choice is
        wrong is none, since another choice has other keys; and whether all choices are right.
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
            problems.append(_unreadable(text))
            continue
        if not override.key_or_group:
            problems.append(_unreadable(text))
            continue
        if override.is_sweep_override() and not multirun:
            problems.append(_several_values(override))
        elif override.is_hydra_override():
            sound.append(text)
        elif not loader.repository.group_exists(override.key_or_group) or _sets_keys(override):
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
        return problems, [], False  # the choices do not compose; Hydra's first message says why
    values = []
    for override in keys:
        if found := _key_problems(loader, config, override):
            problems += found
        elif override.key_or_group.split(".")[0] not in unknown:
            values.append(str(override.input_line))
    return problems, [*sound, *chosen, *values] if values else [], not unknown


def _chosen(loader: Loader, overrides: Sequence[str]) -> list[str]:
    """Return the files that a command line chooses, whose every override can be read."""
    parser = OverridesParser.create(loader)
    parsed = [parser.parse_override(text) for text in loader.normal(overrides)]
    return [
        f"{override.key_or_group}/{name}"
        for override in parsed
        if loader.repository.group_exists(override.key_or_group) and not _sets_keys(override)
        for name in _names(override)
    ]


def _unreadable(text: str) -> Problem:
    key, equals, value = text.partition("=")
    if not equals:
        meant = nearest(text, COMMANDS)
        hint = f"; did you mean the command '{meant}', as the first word?" if meant else ""
        return Problem(text or "''", f"expected KEY=VALUE{hint}", COMMAND_LINE)
    if not key.strip("+~"):
        return Problem(text, "has no key; expected KEY=VALUE", COMMAND_LINE)
    typed = f"{key}={shlex.quote(quoted(value, Quote.double))}"
    return Problem(key, f"cannot read the value {value}; quote it: {typed}", COMMAND_LINE)


def _several_values(override: Override) -> Problem:
    message = "several values want -m, which runs one job for each; write a list as [a,b]"
    return Problem(str(override.input_line), message, COMMAND_LINE)


def _sets_keys(override: Override) -> bool:
    return not override.is_sweep_override() and isinstance(override.value(), dict)


def _names(override: Override) -> list[str]:
    """Return what an override of a group chooses."""
    if override.is_delete():
        return []
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_iterator()] if override.is_discrete_sweep() else []
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _choice_problems(loader: Loader, override: Override) -> list[Problem]:
    group, known = override.key_or_group, loader.choices(override.key_or_group)
    wrong = [name for name in _names(override) if name not in known and name != "null"]
    if not wrong and override.package is None and not override.is_add() and group not in (groups := loader.defaults()):
        message = f"is no group of embfit's; one of your own wants a plus, +{group}=NAME{suggestion(group, groups)}"
        return [Problem(group, message, COMMAND_LINE)]
    element = override.get_key_element()
    if not wrong and group in loader.defaults() and group not in SEVERAL and len(_merged(override)) > 1:
        return [_several_choices(element, _merged(override), COMMAND_LINE)]
    return [
        Problem(
            f"{element}={name}", new_name(f"{group}={name}") or f"no such choice{suggestion(name, known)}", COMMAND_LINE
        )
        for name in wrong
    ]


def _entry(loader: Loader, choice: str, names: Sequence[str]) -> str:
    """Return the place where a file's defaults list chooses these."""
    file = loader.file(choice)
    lines = [f":{entry.line}" for entry in listed(file) if entry.value == list(names)] if file else []
    return f"{file or choice}{''.join(lines[:1])}"


def _merged(override: Override) -> list[str]:
    return [] if override.is_sweep_override() else _names(override)


def _several_choices(element: str, names: Sequence[str], place: str) -> Problem:
    group, each = element.partition("@")[0], ",".join(names)
    message = f"{group} takes one choice; -m {element}={each} runs one job for each"
    return Problem(f"{element}=[{each}]", message, place)


def _nowhere(loader: Loader, override: Override) -> Problem:
    """Say that a choice is made for a place where none is made, and what has such a place."""
    element, group, package = override.get_key_element(), override.key_or_group, str(override.package)
    top, _, inside = package.partition(".")
    around = [
        f"{top}={name}"
        for name in (loader.choices(top) if top in loader.groups() else ())
        if (file := loader.file(f"{top}/{name}")) is not None
        and any(entry.package == inside and resolved(top, entry.group) == group for entry in listed(file))
    ]
    names = ",".join(_names(override))
    remedy = f"add {' or '.join(around)}" if around else f"write {group}={names}"
    return Problem(f"{element}={names}", f"no {group} is chosen at {package}; {remedy}", COMMAND_LINE)


def _deletion_problems(override: Override) -> Iterator[Problem]:
    key = override.key_or_group
    if override.is_delete() and key in NEEDED:
        remedy = f"set {key}=VALUE" if "." in key or key in TOP_LEVEL else f"set what is below it, {key}.KEY=VALUE"
        yield Problem(f"~{key}", f"cannot be left out; {remedy}", COMMAND_LINE)


def _key_problems(loader: Loader, config: DictConfig, override: Override) -> list[Problem]:
    path = override.key_or_group
    if override.package is not None:
        return [Problem(path, f"no such group{suggestion(path, loader.groups())}", COMMAND_LINE)]
    if override.is_delete() and path in NEEDED:
        return list(_deletion_problems(override))
    missing = _follow(config, path)
    if override.is_add() and missing is None:
        return [Problem(path, "is there already; leave out the +", COMMAND_LINE)]
    if missing is None and isinstance(override.value(), list) and isinstance(_look_up(config, path), DictConfig):
        return [Problem(path, "expected a mapping of names, got a list", COMMAND_LINE)]
    if override.is_add() or override.is_force_add() or missing is None:
        return []
    if remedy := new_name(path) or owned_elsewhere(path):
        return [Problem(path, remedy, COMMAND_LINE)]
    parent, name, known = missing
    if not parent:
        if name in loader.groups():
            return [Problem(path, _nothing_there(loader, config, name), COMMAND_LINE)]
        known = [*known, *loader.groups()]
        return [Problem(name, f"no such group or key{suggestion(name, known)}", COMMAND_LINE)]
    known = [key for key in known if not key.startswith("_")]
    hint = suggestion(name, known) if nearest(name, known) else _of_other_choice(loader, config, parent, name)
    return [Problem(path, f"{parent} has no '{name}'{hint or suggestion(name, known)}", COMMAND_LINE)]


def _of_other_choice(loader: Loader, config: DictConfig, group: str, name: str) -> str:
    """Return the end of a sentence that names the choices of a group which have such a key, empty where none has."""
    having: dict[str, list[str]] = {}
    for choice in loader.choices(group) if group in loader.groups() else ():
        loaded = loader.repository.load_config(f"{group}/{choice}")
        keys = [str(key) for key in loaded.config] if loaded and isinstance(loaded.config, DictConfig) else []
        if meant := nearest(name, [key for key in keys if not key.startswith("_")]):
            having.setdefault(meant, []).append(f"{group}={choice}")
    meant = nearest(name, having)
    if meant is None:
        return ""
    chosen = config.hydra.runtime.choices.get(group)
    return f"; {group}.{meant} is a key of {' and '.join(having[meant])}, and {group}={chosen} is chosen"


def _nothing_there(loader: Loader, config: DictConfig, group: str) -> str:
    """Say why a group has no keys."""
    if chosen := config.hydra.runtime.choices.get(group):
        return f"{group}={chosen} has no keys of its own; it sets those of other groups"
    choices = [f"{group}={name}" for name in loader.choices(group)]
    return (
        f"nothing is chosen for {group}; add {' or '.join(choices) if len(choices) <= SPELLED_OUT else f'{group}=NAME'}"
    )


def _look_up(config: DictConfig, path: str) -> object:
    """Return a value, None where it needs what is only known in a run, such as the folder's name."""
    try:
        return OmegaConf.select(config, path)
    except OmegaConfBaseException:
        return None


def _follow(config: DictConfig, path: str) -> tuple[str, str, list[str]] | None:
    """Walk down a key; return the first part that is not there, with its parent and the parent's keys."""
    node: object = config
    parts = [part for part in re.split(r"[.\[\]]", path) if part]
    for depth, name in enumerate(parts):
        parent = ".".join(parts[:depth])
        if OmegaConf.is_list(node):
            return None  # Hydra's own message is right for a list
        if not isinstance(node, DictConfig):
            return parent, name, []
        if name not in node:
            return parent, name, [str(key) for key in node if key != "hydra"]
        node = _look_up(node, name) if OmegaConf.is_interpolation(node, name) else node._get_node(name)
    return None


def _condensed(loader: Loader, error: Exception) -> str:
    """Say in a line what a file does wrong."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}: {error.problem}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"there is no '{name}' in the group {group}{suggestion(name, error.options or [])}"
    if found := _broken_file(loader):
        return found
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    lines = [line.strip() for cause in causes for line in str(cause).splitlines()]
    told = [line for line in lines if line and not re.match(r"To append|See http|full_key:|object_type=", line)]
    return "; ".join(line.rstrip(".") for line in dict.fromkeys(told[:2])) or type(error).__name__


def _broken_file(loader: Loader) -> str | None:
    """Find the file that Hydra's message does not name: the first added one that cannot be read alone."""
    for source in search_path.added_sources():
        for choice in source.choices():
            try:
                loaded = loader.repository.load_config(str(choice.with_suffix("")))
                OmegaConf.merge({}, loaded.config if loaded else {})  # reads its interpolations
            except REFUSALS as error:
                return f"{source.folder / choice}: {str(error).splitlines()[0]}"
    return None
