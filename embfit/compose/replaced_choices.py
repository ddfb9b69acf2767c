"""Leaves out the keys that an experiment sets for its own choice of a group, if the command line makes another choice.

`experiment=from-documents loss=infonce` means the same experiment with another loss. The experiment sets
`loss.teacher` for its own loss, `distill`; `infonce` has no such key. So `~loss.teacher` is added to the overrides. A
key stays if the new choice has it, too, or if the experiment's own choice lacks it, which is an error of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from embfit.compose.targets import MissingTargetError, find_target

_CHOICE = re.compile(r"\+{0,2}([\w/-]+)=([\w./-]+)")  # of one group, such as loss=infonce
_SEVERAL = re.compile(r"\+{0,2}experiment=\[?([\w./,\s-]+)\]?")


@dataclass(frozen=True)
class LeftOut:
    """A key of an experiment that is left out.

    Args:
        key: the key, such as `loss.teacher`.
        experiment: the experiment's name.
        group: the group that the key is in.
        own: the experiment's choice for it.
        chosen: the command line's choice.
        is_null: whether its value is null.
    """

    key: str
    experiment: str
    group: str
    own: str
    chosen: str
    is_null: bool = False

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides that delete the key; Hydra (1.3) deletes no key whose value is null."""
        return (f"{self.key}=0", f"~{self.key}") if self.is_null else (f"~{self.key}",)

    def __str__(self) -> str:
        return (
            f"{self.key} is left out: experiment={self.experiment} sets it for {self.group}={self.own}, and "
            f"{self.group}={self.chosen} has no such key"
        )


class Choices(Protocol):
    """What this module needs of a loader."""

    def content(self, choice: str) -> tuple[Mapping[str, Any], Mapping[str, str]] | None:
        """Return what a file sets and which choices it overrides; None if there is no such file."""

    def defaults(self) -> Mapping[str, str | None]:
        """Return embfit's own choice for each group."""

    def node(self, group: str, choice: str) -> Any:
        """Return what a choice composes for its group; None if it does not compose."""


def left_out(loader: Choices, overrides: Sequence[str]) -> list[LeftOut]:
    """Return the keys that experiments set for choices which the command line, or a later experiment, replaces.

    Args:
        loader: reads and composes choices.
        overrides: the command line.
    """
    named = {name: loader.content(f"experiment/{name}") for name in _experiments(overrides)}
    files = {name: file for name, file in named.items() if file is not None}
    direct = {match[1]: match[2] for text in overrides if (match := _CHOICE.fullmatch(text))}
    final = {**loader.defaults(), **_chosen_by(loader, direct)}
    for _, own in files.values():
        final |= own
    final |= direct
    typed = [text.lstrip("~+").partition("=")[0] for text in overrides]
    found: dict[str, LeftOut] = {}
    for name, (content, own) in files.items():
        for group, values in content.items():
            before, now = own.get(group, loader.defaults().get(group)), final.get(group)
            if before is None or now is None or before == now or not isinstance(values, Mapping):
                continue
            for path in _unknown(values, loader.node(group, before), loader.node(group, now)):
                key = f"{group}.{path}"
                if not any(_within(text, key) for text in typed):
                    found.setdefault(key, LeftOut(key, name, group, before, now, _is_null(values, path)))
    return list(found.values())


def _chosen_by(loader: Choices, direct: Mapping[str, str]) -> dict[str, str]:
    """Return the choices for other groups that the command line's choices make, as `model=cross-encoder` for loss."""
    files = [loader.content(f"{group}/{name}") for group, name in direct.items() if group != "experiment"]
    return {group: name for file in files if file is not None for group, name in file[1].items()}


def _experiments(overrides: Sequence[str]) -> list[str]:
    """Return the experiments that the command line chooses; none for a sweep over experiments."""
    last = next((match[1] for text in reversed(overrides) if (match := _SEVERAL.fullmatch(text))), "")
    return [name.strip() for name in last.split(",") if name.strip()]


def _unknown(values: Mapping[str, Any], before: Any, now: Any) -> list[str]:
    """Return the keys that the experiment's own choice has and the new one lacks, each as short as it is unknown."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return []
    paths = list(_paths(values))
    mistaken = {_lacking(before, path) for path in paths}  # the file's own errors, which must be seen
    lacking = dict.fromkeys(_lacking(now, path) for path in paths if _lacking(before, path) is None)
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


def _lacking(node: Any, path: Sequence[str]) -> str | None:
    """Return the shortest beginning of a path for which a choice has no key; None if it has the whole path."""
    for depth, part in enumerate(path):
        if not isinstance(node, Mapping):
            return None  # the check of the composed values judges what is set below a plain value
        if part in node:
            node = node[part]
        elif _takes(node, part):
            return None
        else:
            return ".".join(path[: depth + 1])
    return None


def _takes(node: Mapping[str, Any], key: str) -> bool:
    """Return whether the code that a node names has a parameter that its file does not list."""
    try:
        target = find_target(str(node.get("_target_", "")))
    except MissingTargetError:
        return False
    return key in target.parameters or target.open_ended
