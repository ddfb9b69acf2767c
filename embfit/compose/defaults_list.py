"""Reads defaults lists: the choices of a YAML file for its own group and for others, with their lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from embfit.compose.loader import Loader
from embfit.compose.problems import Problem
from embfit.compose.renamed_keys import new_name
from embfit.suggestions import suggestion

NO_FILES = ("_self_", "_here_", "null")


@dataclass(frozen=True)
class Entry:
    """One entry of a defaults list: `override /loss@loss.loss: infonce`, or `infonce` alone.

    Args:
        line: the number of its line in the file.
        words: the words before the group: `override`, `optional`.
        group: the group as it is written, relative to the file's own unless it begins with a slash; None for a file
            alone.
        package: the text after the `@`.
        value: the choice: a name, several, or null.
    """

    line: int
    words: tuple[str, ...]
    group: str | None
    package: str | None
    value: Any

    @property
    def names(self) -> list[str]:
        """The chosen names, without interpolations."""
        found = self.value if isinstance(self.value, list) else [self.value]
        return [name for name in found if isinstance(name, str) and "$" not in name and name not in NO_FILES]


def entries(tree: yaml.Node | None) -> Iterator[Entry]:
    """Yield the entries of a file's defaults list, without invalid ones."""
    pairs = tree.value if isinstance(tree, yaml.MappingNode) else ()
    listed = next((value for key, value in pairs if key.value == "defaults"), None)
    for node in listed.value if isinstance(listed, yaml.SequenceNode) else ():
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            name, _, package = str(node.value).partition("@")
            yield Entry(line, (), None, package or None, name)
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if match := re.fullmatch(r"((?:override |optional )*)(/?[^@]+)(?:@(.+))?", key.value):
                chosen = SafeConstructor().construct_document(value)
                yield Entry(key.start_mark.line + 1, tuple(match[1].split()), match[2], match[3], chosen)


def wrong_entries(loader: Loader, choices: Iterable[str]) -> Iterator[Problem]:
    """Yield the problems in the defaults lists of choices (`experiment/ours`), and of the choices that they name."""
    waiting, seen = list(choices), set()
    while waiting:
        choice = waiting.pop(0)
        file = None if choice in seen else loader.file(choice)
        seen.add(choice)
        if file is None:
            continue
        own = choice.rpartition("/")[0]
        for entry in listed(file):
            if message := _complaint(loader, own, entry):
                yield Problem(f"{file}:{entry.line}", message)
            else:
                waiting += [_path(resolved(own, entry.group), name) for name in entry.names]


def listed(file: Path) -> list[Entry]:
    """Return the entries of a file; none if it is broken, which composing reports."""
    try:
        return list(entries(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)))
    except yaml.YAMLError:
        return []


def resolved(own: str, group: str | None) -> str:
    """Return the full name of a group that a file of the group `own` names."""
    if group is None:
        return own
    return group[1:] if group.startswith("/") else f"{own}/{group}"


def _path(group: str, name: str) -> str:
    return name[1:] if name.startswith("/") else f"{group}/{name}"


def _complaint(loader: Loader, own: str, entry: Entry) -> str | None:
    if entry.group is None:
        return _no_such_choice(loader, own, entry)
    group, known = resolved(own, entry.group), loader.defaults()
    bare = entry.group.removeprefix("/")
    if entry.package is None and bare in known and ("override" not in entry.words or group != bare):
        return (
            f"'{entry.group}: {entry.value}' does not choose for another group; write - override /{bare}: {entry.value}"
        )
    if not loader.repository.group_exists(group) or (
        "override" in entry.words and entry.package is None and group not in known
    ):
        return f"there is no group '{group}'{suggestion(group, known)}"
    return _no_such_choice(loader, group, entry)


def _no_such_choice(loader: Loader, group: str, entry: Entry) -> str | None:
    missing = [name for name in entry.names if loader.file(_path(group, name)) is None]
    if not missing or "optional" in entry.words:
        return None
    if now := new_name(f"{group}={missing[0]}"):
        return f"{group}={missing[0]} {now}"
    return f"there is no '{missing[0]}' in the group {group}{suggestion(missing[0], loader.choices(group))}"
