"""Leaves out the keys that an experiment sets for its own choice of a group, if another choice is made.

`experiment=from-documents loss=infonce` means the same experiment with another loss. The experiment sets
`loss.teacher` for its own loss, `distill`; `infonce` has no such key. So `~loss.teacher` is added to the overrides. A
key stays if the new choice has it, too, or if the experiment's own choice lacks it, which is an error of the file.

An experiment's own choices are those of `experiment=NAME` alone. Another choice can come from the command line, from
another experiment, or from an experiment that builds on this one; nested choices (`loss@loss.loss=kl`) count as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import ResultDefault

from embfit.compose.targets import MissingTargetError, find_target

FOLDER = "experiment/"


@dataclass(frozen=True)
class LeftOut:
    """A key of an experiment that is left out.

    Args:
        key: the key, such as `loss.teacher`.
        experiment: the experiment's name.
        own: the experiment's own choice, such as `loss=distill`.
        chosen: the choice that is made instead.
        is_null: whether its value is null.
    """

    key: str
    experiment: str
    own: str
    chosen: str
    is_null: bool = False

    @property
    def group(self) -> str:
        """The group that the key is in, as the configuration has it."""
        return self.key.partition(".")[0]

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides that delete the key; Hydra (1.3) deletes no key whose value is null."""
        return (f"{self.key}=0", f"~{self.key}") if self.is_null else (f"~{self.key}",)

    def __str__(self) -> str:
        return (
            f"{self.key} is left out: experiment={self.experiment} sets it for {self.own}, and "
            f"{self.chosen} has no such key"
        )


class Files(Protocol):
    """What this module needs of a loader."""

    def layout(self, overrides: Sequence[str]) -> DefaultsList | None:
        """Return the files that overrides compose; None if they do not compose."""

    def merged(self, files: Sequence[ResultDefault]) -> dict[str, Any]:
        """Return what files set together, each at its place."""


def left_out(loader: Files, overrides: Sequence[str]) -> list[LeftOut]:
    """Return the keys that experiments set for choices of their own which are replaced.

    Args:
        loader: reads and merges files.
        overrides: the command line.
    """
    typed = [text.lstrip("~+").partition("=")[0] for text in overrides]
    if not any(f"{key}/".startswith(FOLDER) for key in typed) or (now := loader.layout(overrides)) is None:
        return []
    found: dict[str, LeftOut] = {}
    for file in now.defaults:
        if not str(file.config_path).startswith(FOLDER):
            continue
        name = str(file.config_path).removeprefix(FOLDER)
        if (own := loader.layout([f"experiment={name}"])) is None:
            continue
        for group, values in loader.merged([file]).items():
            ours, theirs = _files(own, group), _files(now, group)
            if ours == theirs or not isinstance(values, Mapping):
                continue
            before, after = (loader.merged(files).get(group) for files in (ours, theirs))
            for path in _unknown(values, before, {} if after is None else after):
                key = f"{group}.{path}"
                replaced = _replaced(own.overrides.known_choices, now.overrides.known_choices, key)
                if replaced is not None and not any(_within(text, key) for text in typed):
                    found.setdefault(key, LeftOut(key, name, *replaced, is_null=_is_null(values, path)))
    return list(found.values())


def _files(layout: DefaultsList, group: str) -> list[ResultDefault]:
    """Return the files that are placed at a group or inside it."""
    return [file for file in layout.defaults if _within(file.package, group)]


def _replaced(own: Mapping[str, Any], now: Mapping[str, Any], key: str) -> tuple[str, str] | None:
    """Return the outermost choice around a key that is another one now, as it was and as it is."""
    places = {element: element.rpartition("@")[2] for element in (*own, *now)}
    around = [
        element for element, place in places.items() if _within(key, place) and own.get(element) != now.get(element)
    ]
    if not around:
        return None
    element = min(around, key=lambda name: len(places[name]))
    return _choice(element, own.get(element)), _choice(element, now.get(element))


def _choice(element: str, names: Any) -> str:
    if names is None:
        return f"{element}=null"
    return f"{element}={names if isinstance(names, str) else '[' + ','.join(names) + ']'}"


def _unknown(values: Mapping[str, Any], before: Any, now: Any) -> list[str]:
    """Return the keys that the experiment's own choice has and the new one lacks, each as short as it is unknown."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return []
    paths = list(_paths(values))
    mistaken = {_lacking(before, path) for path in paths}  # the file's own errors, which must be seen
    lacking = dict.fromkeys(_lacking(now, path, before) for path in paths if _lacking(before, path) is None)
    return [key for key in lacking if key is not None and not any(_within(other, key) for other in mistaken)]


def _within(key: str | None, other: str) -> bool:
    return key is not None and f"{key}.".startswith(f"{other}.")


def _is_null(values: Any, path: str) -> bool:
    for part in path.split("."):
        values = values[part]
    return values is None


def _paths(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, (*prefix, str(key)))
        else:
            yield (*prefix, str(key))


def _lacking(node: Any, path: Sequence[str], own: Any = None) -> str | None:
    """Return the shortest beginning of a path for which a choice has no key; None if it has the whole path.

    Args:
        node: what the choice sets.
        path: the parts of a key.
        own: what the experiment's own choice sets. A mapping of names takes any name, but what is set below a name
            that only the own choice has is lacking: it was meant for the object there.
    """
    for depth, part in enumerate(path):
        if not isinstance(node, Mapping):
            return None  # the check of the composed values judges what is set below a plain value
        is_own = isinstance(own, Mapping) and part in own
        own = own[part] if is_own else None
        if part in node:
            node = node[part]
        elif not _takes(node, part) if "_target_" in node else is_own:
            return ".".join(path[: depth + 1])
        else:
            return None
    return None


def _takes(node: Mapping[str, Any], key: str) -> bool:
    """Return whether the code that a node names has a parameter that its file does not list."""
    try:
        target = find_target(str(node.get("_target_", "")))
    except MissingTargetError:
        return False
    return key in target.parameters or target.open_ended
