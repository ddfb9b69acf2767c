"""JSON schemas of the groups' YAML files, so that editors complete keys, show what they mean and mark what is wrong.

A schema is made from the same signatures and type hints that the preflight holds values to, and from the comments of
the YAMLs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from embfit.compose.group_packages import NOT_THE_TRAINERS, REWRITTEN
from embfit.compose.loader import Loader
from embfit.compose.preflight import HYDRA_KEYS, TOP_LEVEL
from embfit.compose.problems import Problem
from embfit.compose.search_path import added_sources, house
from embfit.compose.targets import MissingTargetError, Target, find_target

DRAFT = "http://json-schema.org/draft-07/schema#"
INTERPOLATION = {"type": "string", "pattern": r"\$\{"}
ANYTHING: dict[str, Any] = {}

Schema = dict[str, Any]


@dataclass(frozen=True)
class ConfigChoice:
    """A YAML file.

    Args:
        text: the file's text, which has the comments.
        node: the file's keys.
    """

    text: str
    node: Mapping[str, Any]


def sound_choices() -> tuple[dict[str, list[ConfigChoice]], list[Problem]]:
    """Return the files that describe something, by group, and what is wrong with the others."""
    found: dict[str, list[ConfigChoice]] = {}
    problems: list[Problem] = []
    for source in [house(), *added_sources()]:
        for path in source.choices():
            file = source.folder / path
            try:
                found.setdefault(path.parts[0], []).append(_read(file))
            except yaml.MarkedYAMLError as error:
                line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
                problems.append(Problem(f"{file}{line}", str(error.problem)))
            except (yaml.YAMLError, MissingTargetError) as error:
                problems.append(Problem(str(file), str(error)))
    return found, problems


def _read(file: Path) -> ConfigChoice:
    text = file.read_text(encoding="utf-8")
    loaded = yaml.safe_load(text)
    node = loaded if isinstance(loaded, Mapping) else {}
    for inside in (node, *node.values()):
        if isinstance(inside, Mapping) and "_target_" in inside:
            find_target(str(inside["_target_"]))
    return ConfigChoice(text, node)


def schemas(loader: Loader, choices: Mapping[str, Sequence[ConfigChoice]]) -> dict[str, Schema]:
    """Return the schema of each group's files, by group."""
    groups = [group for group in loader.groups() if group != "experiment"]
    alone = {group: _group(group, choices.get(group, ()), {}) for group in groups}
    found = {group: _group(group, choices.get(group, ()), alone) for group in groups}
    if "experiment" in loader.groups():
        found["experiment"] = _experiment(found)
    return found


def _group(group: str, choices: Sequence[ConfigChoice], others: Mapping[str, Schema]) -> Schema:
    """Return the schema of a group: a file's keys are those of the code that it names, or of any of the group's.

    Args:
        group: the group's name.
        choices: the group's files.
        others: the schemas of the groups from which a key of a file may take a choice (`/model@encoder: bge-large`).
    """
    targets: dict[str, Target] = {}
    comments: dict[str, str] = {}
    nested: dict[str, list[Schema]] = {}
    for choice in choices:
        if "_target_" in choice.node:
            name = str(choice.node["_target_"])
            targets.setdefault(name, find_target(name))
            comments = {**_comments(choice.text), **comments}
        for key, schema in _nested(choice, group, others).items():
            if schema not in nested.setdefault(key, []):
                nested[key].append(schema)
    inside = {key: {"anyOf": [*choices, {"type": "null"}, INTERPOLATION]} for key, choices in nested.items()}
    by_target = {name: _parameters(target, group, comments) for name, target in targets.items()}
    for parameters in by_target.values():
        parameters |= {key: {**parameters[key], **schema} for key, schema in inside.items() if key in parameters}
    merged = _merged(list(by_target.values()))
    described: Schema = {
        "$schema": DRAFT,
        "title": f"embfit: {group}",
        "type": "object",
        "properties": {**_hydra(list(targets)), **(merged or inside)},
    }
    if targets:
        described["allOf"] = [_branch(name, targets[name], by_target[name]) for name in targets]
        if not any(target.open_ended for target in targets.values()):
            built_on_others: Schema = {"not": {"required": ["_target_"]}}
            described["allOf"].append({"if": built_on_others, "then": _closed(merged)})
    return described


def _merged(targets: list[Schema]) -> Schema:
    """Return the keys of any of several targets; a key that they take in different ways may be any of those."""
    ways: dict[str, list[Schema]] = {}
    for parameters in targets:
        for key, schema in parameters.items():
            if schema not in ways.setdefault(key, []):
                ways[key].append(schema)
    return {key: found[0] if len(found) == 1 else {"anyOf": found} for key, found in ways.items()}


def _nested(choice: ConfigChoice, group: str, others: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return what stands at keys of a file: a choice of another group that its defaults name, or code of its own."""
    found: dict[str, Schema] = {}
    for entry in choice.node.get("defaults") or []:
        for name in entry if isinstance(entry, Mapping) else ():
            other, at, key = str(name).removeprefix("override ").strip("/").partition("@")
            if at and other in others:
                found[key] = {"type": "object", "properties": others[other]["properties"]}
    for key, value in choice.node.items():
        if isinstance(value, Mapping) and "_target_" in value:
            target = find_target(str(value["_target_"]))
            found[key] = _closed(_parameters(target, group, _comments(choice.text))) if not target.open_ended else {}
            found[key] |= {"type": "object"}
    return found


def _branch(name: str, target: Target, parameters: Schema) -> Schema:
    """Say what a file that names a target may hold."""
    names_it: Schema = {"properties": {"_target_": {"const": name}}, "required": ["_target_"]}
    return {"if": names_it, "then": {} if target.open_ended else _closed(parameters)}


def _closed(parameters: Schema) -> Schema:
    keys = {**dict.fromkeys(("defaults", *HYDRA_KEYS), ANYTHING), **parameters}
    return {"properties": keys, "additionalProperties": False}


def _hydra(targets: list[str]) -> Schema:
    return {
        "defaults": {"type": "array", "description": "choices that this one builds on; _self_ is this file"},
        "_target_": {"type": "string", "description": "the code that this configures", "examples": targets},
        "_partial_": {"type": "boolean", "description": "call it later, with more arguments"},
    }


def _parameters(target: Target, group: str, comments: Mapping[str, str]) -> Schema:
    hints = {**target.hints, **REWRITTEN.get(group, {})}
    found: Schema = {}
    for key, parameter in target.parameters.items():
        if group == "trainer" and key in NOT_THE_TRAINERS:
            continue
        schema: Schema = {"anyOf": [_of_hint(hints[key]), INTERPOLATION, {"const": "???"}]}
        if key in comments:
            schema["description"] = comments[key]
        if isinstance(parameter.default, str | int | float | bool | None):
            schema["default"] = parameter.default
        found[key] = schema
    return found


def _of_hint(hint: Any) -> Schema:
    """Return the schema of a type hint; a node with a `_target_` may stand for an object."""
    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            schema = TypeAdapter(hint, config=config).json_schema()
            # references count from the top of a document, and an unknown type comes as a choice among none
            return ANYTHING if any(sign in json.dumps(schema) for sign in ('"$defs"', '"anyOf": []')) else schema
        except (PydanticUserError, SchemaError, NameError):
            continue
    return ANYTHING


def _experiment(groups: Mapping[str, Schema]) -> Schema:
    """Return the schema of experiments: defaults, and keys of any group."""
    keys = {key.split(".")[0]: ANYTHING for key in TOP_LEVEL}
    parts = {group: {"type": "object", "properties": schema["properties"]} for group, schema in groups.items()}
    return {
        "$schema": DRAFT,
        "title": "embfit: experiment",
        "type": "object",
        "properties": {"defaults": _hydra([])["defaults"], **keys, "store": ANYTHING, "hydra": ANYTHING, **parts},
        "additionalProperties": False,
    }


def _comments(text: str) -> dict[str, str]:
    """Return what a file says behind its keys, those at the top before those below them."""
    found = re.findall(r"^( *)(\w+):.*?\s#\s(.+)$", text, re.MULTILINE)
    return {key: comment for _, key, comment in sorted(found, key=lambda match: -len(match[0]))}


def settings(folder: Path, groups: list[str]) -> dict[str, list[str]]:
    """Return what VS Code's YAML extension wants under `yaml.schemas`: schema file → the files that it is for."""
    folders = ["**/conf", *(str(source.folder) for source in added_sources() if source.package is None)]
    return {str(folder / f"{group}.json"): [f"{place}/{group}/*.yaml" for place in folders] for group in groups}
