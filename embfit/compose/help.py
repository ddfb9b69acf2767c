"""`--help`: prints every group and every choice with the first line of its YAML, which says when to choose it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from embfit.compose.command_line import COMMANDS
from embfit.compose.defaults_list import listed
from embfit.compose.loader import Loader
from embfit.errors import ConfigError
from embfit.suggestions import suggestion

USAGE = """\
embfit fine-tunes text-embedding models to search your documents. You choose every step by YAML.

Usage: python -m embfit [GROUP=CHOICE ...] [KEY=VALUE ...] [OPTION ...]
       python -m embfit                                 a whole fine-tuning on a small built-in collection
       python -m embfit model=bge-small data=beir data.path=DIR training.epochs=1
       python -m embfit -m loss.temperature=0.02,0.05   one run for each value
       python -m embfit TASK [KEY=VALUE ...]            the same as task=TASK: python -m embfit evaluate data=beir ...
       python -m embfit COMMAND --help                  COMMAND is one of the commands below
"""

KEYS = """\
Every key, with its value: python -m embfit --cfg job [GROUP=CHOICE ...]
Guides: docs/configuration.md, and docs/GROUP.md for each group.
"""


def overview(loader: Loader, flags: str) -> str:
    """Return the help text.

    Args:
        loader: the loader, which knows groups and choices.
        flags: the argument parser's description of the options.
    """
    width = max(shutil.get_terminal_size((120, 24)).columns, 80)
    lines = [USAGE]
    for group, default in _groups(loader):
        lines += [f"{group}=", *_choices(loader, group, default, width), ""]
    commands = ["Commands:", *(f"  {word:8}  {text}" for word, text in COMMANDS.items()), ""]
    return "\n".join([*lines, "* is the default.", "", KEYS, *commands, flags])


def about(loader: Loader, word: str) -> str:
    """Return the help on a group, or on one choice of it.

    Args:
        loader: the loader, which knows groups and choices.
        word: the topic: `GROUP`, for its choices and the keys of its default, or `GROUP=CHOICE`, for its
            keys.

    Raises:
        ConfigError: the group or choice does not exist.
    """
    group, _, name = word.partition("=")
    groups = dict(_groups(loader))
    if group not in groups:
        raise ConfigError(f"--help {group}: there is no such group{suggestion(group, groups)}")
    if name and name not in loader.choices(group):
        raise ConfigError(f"--help {word}: there is no such choice{suggestion(name, loader.choices(group))}")
    lines = [] if name else [f"{group}=", *_choices(loader, group, groups[group], sys.maxsize), ""]
    if shown := name or groups[group]:
        lines += _keys(loader, f"Keys of {group}={shown}", f"{group}/{shown}")
    elif choices := loader.choices(group):
        lines.append(f"Keys of a choice: python -m embfit --help {group}={choices[0]}")
    return "\n".join(lines)


def _keys(loader: Loader, heading: str, choice: str) -> Iterator[str]:
    """Yield the text of a choice's file, then those of its own group that it builds on."""
    file = loader.file(choice)
    if file is None:
        return
    yield from (f"{heading}, from {file}:", "", file.read_text(encoding="utf-8").rstrip())
    group = choice.partition("/")[0]
    for entry in listed(file):
        for name in entry.names if entry.group is None and entry.package is None else ():
            yield ""
            yield from _keys(loader, f"Built on {group}={name}", f"{group}/{name}")


def _choices(loader: Loader, group: str, default: str | None, width: int) -> Iterator[str]:
    names = loader.choices(group)
    column = max((len(name) for name in names), default=0)
    for name in names:
        mark = "*" if name == default else " "
        first, *rest = textwrap.wrap(purpose(loader.file(f"{group}/{name}")), width - column - 6) or [""]
        yield f"  {mark} {name:{column}}  {first}".rstrip()
        yield from (f"{'':{column + 6}}{line}" for line in rest)


def purpose(file: Path | None) -> str:
    """Return the first comment line of a YAML, which says when to choose it."""
    if file is None:
        return ""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():  # composing reports other encodings
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ")
        if line and not line.startswith("#"):
            break
    return ""


def _groups(loader: Loader) -> Iterator[tuple[str, str | None]]:
    """Yield groups with their default choice, in the order of the defaults list; then those that only packs have."""
    known = loader.defaults()
    yield from known.items()
    yield from ((group, None) for group in loader.groups() if group not in known)
