"""Explains wrong keys of a command line: the chosen files do not have them, or they must not be deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embfit.compose.group_packages import owned_elsewhere
from embfit.compose.loader import Loader
from embfit.compose.preflight import TOP_LEVEL
from embfit.compose.problems import Problem
from embfit.compose.renamed_keys import new_name
from embfit.compose.value_origins import COMMAND_LINE
from embfit.suggestions import nearest, suggestion

NEEDED = frozenset(
    {"store", *TOP_LEVEL, *(key.split(".")[0] for key in TOP_LEVEL)}
)  # groups whose values other values refer to
SPELLED_OUT = 3  # more choices than this are not listed


def key_problems(loader: Loader, config: DictConfig, override: Override) -> list[Problem]:
    """Return the problems of an override of a key.

    Args:
        loader: the loader, which knows the groups and their choices.
        config: the configuration of the command line's choices.
        override: the override.
    """
    path = override.key_or_group
    if override.package is not None:
        return [Problem(path, f"no such group{suggestion(path, loader.groups())}", COMMAND_LINE)]
    if override.is_delete() and path in NEEDED:
        return list(deletion_problems(override))
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


def deletion_problems(override: Override) -> Iterator[Problem]:
    """Return the problem of an override that deletes a key to which other values refer."""
    key = override.key_or_group
    if override.is_delete() and key in NEEDED:
        remedy = f"set {key}=VALUE" if "." in key or key in TOP_LEVEL else f"set what is below it, {key}.KEY=VALUE"
        yield Problem(f"~{key}", f"cannot be left out; {remedy}", COMMAND_LINE)


def _of_other_choice(loader: Loader, config: DictConfig, group: str, name: str) -> str:
    """Return the end of a sentence that names the choices of a group with such a key; empty if there are none."""
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
    """Return the reason why a group has no keys."""
    if chosen := config.hydra.runtime.choices.get(group):
        return f"{group}={chosen} has no keys of its own; it sets those of other groups"
    choices = [f"{group}={name}" for name in loader.choices(group)]
    return (
        f"nothing is chosen for {group}; add {' or '.join(choices) if len(choices) <= SPELLED_OUT else f'{group}=NAME'}"
    )


def _look_up(config: DictConfig, path: str) -> object:
    """Return a value; None if it depends on something that only a run knows, such as the folder's name."""
    try:
        return OmegaConf.select(config, path)
    except OmegaConfBaseException:
        return None


def _follow(config: DictConfig, path: str) -> tuple[str, str, list[str]] | None:
    """Follow a key; return its first missing part, with the parent and the parent's keys."""
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
