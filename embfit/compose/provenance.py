"""Finds where each value of a configuration was written: a file and its line, a config pack, or the command line.

Hydra merges files and forgets which gave what. This reads the same files in the same order once more, keeping the line
of each key, and lets later layers overwrite earlier ones as the merge does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from embfit.compose.defaults_list import entries
from embfit.compose.loader import CONFIG, Loader
from embfit.compose.value_origins import COMMAND_LINE, Layer, Origins, leaves

MERGE = "tag:yaml.org,2002:merge"  # the key <<


@dataclass(frozen=True)
class _File:
    """A choice that takes part in a configuration, as text and as a tree that knows its lines."""

    name: str
    package: str
    place: str
    tree: yaml.MappingNode
    values: Mapping[str, Any]


def trace(loader: Loader, overrides: Sequence[str]) -> Origins:
    """Return where each leaf of the configuration that these overrides compose was written."""
    origins = Origins()
    defaults = loader.compute_defaults_list(CONFIG, loader.completed(overrides), RunMode.RUN)
    files = []
    for default in defaults.defaults:
        name = str(default.config_path)
        package = "" if default.package in (None, "_global_") else str(default.package)
        if not name.startswith("hydra/") and (file := _read(loader, name, package)):
            files.append(file)
            _add_file(origins, file)
    for override in defaults.config_overrides:
        _add_override(origins, override)
    origins.choices = _choices(files, defaults.overrides)
    return origins


def _read(loader: ConfigLoaderImpl, name: str, package: str) -> _File | None:
    source = next((source for source in loader.get_sources() if source.is_config(name)), None)
    if source is None or source.scheme() != "file":
        return None
    file = Path(source.path) / f"{name}.yaml"
    parsed = _parsed(file.read_text(encoding="utf-8"))
    return None if parsed is None else _File(name, package, _shown(source.provider, file, name), *parsed)


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[yaml.MappingNode, Mapping[str, Any]] | None:
    """Return a YAML mapping as a tree and as plain values, which are only looked at; None where it is no mapping."""
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(tree, yaml.MappingNode):
        return None
    values: Any = OmegaConf.to_container(OmegaConf.create(text))
    return tree, values


def _add_file(origins: Origins, file: _File) -> None:
    prefix = f"{file.package}." if file.package else ""
    written = dict(leaves(file.values, prefix))
    for key, line in _lines(file.tree, prefix):
        if key != "defaults" and not key.startswith(("hydra.", f"{file.package}.defaults")):
            origins.put(key, f"{file.place}:{line}", written.get(key))


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
    value: Any = override.value()
    if isinstance(value, dict) and value:
        for name, item in leaves(value, f"{key}."):
            origins.put(name, COMMAND_LINE, plain(item))
    else:
        origins.put(key, COMMAND_LINE, plain(value))


def plain(value: Any) -> Any:
    """Return a command line's value without the quotes that Hydra's grammar keeps around text."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value.text if hasattr(value, "quote") else value


def _choices(files: Sequence[_File], overrides: Any) -> dict[str, tuple[Layer, ...]]:
    """Return who chose for each group: the override that Hydra followed, then the default that it replaced."""
    defaults: dict[str, Layer] = {}
    overriding: dict[tuple[str, str], Layer] = {}
    for file in files:
        for group, value, line, is_override in _listed(file):
            layer = Layer(f"{file.place}:{line}", value)
            if is_override:
                overriding[file.name, group] = layer
            else:
                defaults[group] = layer
    found = {}
    for group in dict.fromkeys([*reversed(overrides.known_choices), *overrides.deletions]):
        layers = [defaults[group]] if group in defaults else []
        by = overrides.override_metadata.get(group)
        if group.startswith("hydra/") and not (by and by.external_override):
            continue  # how embfit is set up
        if by is not None:
            place = COMMAND_LINE if by.external_override else f"conf/{by.containing_config_path}.yaml"
            key = str(by.containing_config_path), group
            layers.insert(0, overriding.get(key) or Layer(place, overrides.known_choices.get(group)))
        if group in overrides.deletions:
            layers.insert(0, Layer(COMMAND_LINE, None))
        if layers:
            found[group] = tuple(layers)
    return found


def _listed(file: _File) -> Iterator[tuple[str, Any, int, bool]]:
    """Yield the groups of a file's defaults list: name, choice, line, and whether it overrides another list."""
    parent = file.name.rpartition("/")[0]
    for entry in entries(file.tree):
        if entry.group is None:
            continue
        group = f"{parent}/{entry.group}" if parent and not entry.group.startswith("/") else entry.group
        group = group.removeprefix("/")
        if entry.package is not None:
            inside = "" if entry.package.startswith("_global_") or not file.package else f"{file.package}."
            group = f"{group}@{inside}{entry.package.removeprefix('_global_.')}"
        yield group, entry.value, entry.line, "override" in entry.words


def _shown(provider: str, file: Path, name: str) -> str:
    """Name embfit's and a pack's files by what they are, since their folders differ by machine; others by path."""
    if provider == "main":
        return f"conf/{name}.yaml"
    if "==" in provider:
        return f"{provider}:{name}.yaml"
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
