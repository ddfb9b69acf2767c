"""Where each value of a configuration was written: a file and its line, a config pack, or the command line.

Hydra merges files and forgets which gave what. This reads the same files in the same order once more, keeping the line
of each key, and lets later layers overwrite earlier ones as the merge does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from embfit.compose.loader import CONFIG, Loader

COMMAND_LINE = "command line"
MERGE = "tag:yaml.org,2002:merge"  # the key <<


class Origins(dict[str, str]):
    """Key of a leaf (`training.epochs`) → where it was written. A list is one leaf."""

    def find(self, key: str) -> str:
        """Return the place of a key, of what holds it (`callbacks[0].patience`), or of the first leaf below it."""
        path = key.replace("[", ".[")
        while path:
            if path in self:
                return self[path]
            below = next((place for name, place in self.items() if name.startswith(f"{path}.")), None)
            if below is not None and path == key:
                return below
            path = path.rpartition(".")[0]
        return ""

    def put(self, key: str, place: str) -> None:
        """Write a leaf, which replaces what was below the key and what was in the way above it."""
        self.drop(key)
        parent = key.rpartition(".")[0]
        while parent:
            self.pop(parent, None)
            parent = parent.rpartition(".")[0]
        self[key] = place

    def drop(self, key: str) -> None:
        """Forget a key and all below it."""
        for name in [name for name in self if name == key or name.startswith(f"{key}.")]:
            del self[name]


def trace(loader: Loader, overrides: Sequence[str]) -> Origins:
    """Return where each leaf of the configuration that these overrides compose was written."""
    origins = Origins()
    defaults = loader.compute_defaults_list(CONFIG, loader.normal(overrides), RunMode.RUN)
    for default in defaults.defaults:
        name = str(default.config_path)
        if not name.startswith("hydra/"):
            package = "" if default.package in (None, "_global_") else str(default.package)
            _add_file(origins, loader, name, package)
    for override in defaults.config_overrides:
        _add_override(origins, override)
    return origins


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the key and value of each leaf; a list, and an empty mapping, is one leaf."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def _add_file(origins: Origins, loader: ConfigLoaderImpl, name: str, package: str) -> None:
    source = next((source for source in loader.get_sources() if source.is_config(name)), None)
    if source is None or source.scheme() != "file":
        return
    file = Path(source.path) / f"{name}.yaml"
    tree = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if isinstance(tree, yaml.MappingNode):
        place = _shown(source.provider, file, name)
        for key, line in _lines(tree, f"{package}." if package else ""):
            if key != "defaults" and not key.startswith(("hydra.", f"{package}.defaults")):
                origins.put(key, f"{place}:{line}")


def _lines(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        if key.tag == MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _lines(merged, prefix)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _lines(value, f"{prefix}{key.value}.")
        else:
            yield f"{prefix}{key.value}", key.start_mark.line + 1


def _add_override(origins: Origins, override: Override) -> None:
    key = override.key_or_group
    if override.is_hydra_override():
        return
    if override.is_delete():
        origins.drop(key)
        return
    value = override.value()
    if isinstance(value, dict) and value:
        for name, _ in leaves(value, f"{key}."):
            origins.put(name, COMMAND_LINE)
    else:
        origins.put(key, COMMAND_LINE)


def _shown(provider: str, file: Path, name: str) -> str:
    """Name embfit's and a pack's files by what they are, since their folders differ by machine; others by path."""
    if provider == "main":
        return f"conf/{name}.yaml"
    if "==" in provider:
        return f"{provider}:{name}.yaml"
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
