"""Checks a plain value against a type hint, and describes the hint in words."""

from __future__ import annotations

import collections.abc
import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError, ValidationError

WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    types.NoneType: ("null", "null"),
}
LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping)


def complaint(value: Any, hint: Any) -> str | None:
    """Return the expected and the given value in words, or None if the value fits the hint.

    Values are checked as strict JSON: a whole number counts as a float and a list as a tuple, but neither `'3'` nor
    `true` for a number. A hint that pydantic cannot read is not checked.
    """
    if not _finite(value):
        return f"expected {wanted(hint)}, got {shown(value)}"
    adapter = _adapter(hint)
    if adapter is None:
        return None
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return f"expected {wanted(hint)}, got {shown(value)}{_detail(error, value, hint)}"
    except PydanticUserError:
        return None  # the hint uses an undefined name
    except TypeError:
        return f"expected {wanted(hint)}, got {type(value).__name__}"  # such as a date, which JSON does not have
    return None


def wanted(hint: Any, plural: bool = False) -> str:
    """Describe a type hint: `int | None` is "a whole number or null"."""
    if hint in WORDS:
        return WORDS[hint][plural]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([wanted(arguments[0], plural), *_bounds(arguments[1:])])
    if origin is Literal:
        return ("any of " if plural else "one of ") + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(wanted(argument, plural) for argument in arguments))
    if origin in LISTS or hint in LISTS:
        items = [argument for argument in arguments if argument is not ...]
        return "a list" + (f" of {wanted(items[0], plural=True)}" if items else "")
    if origin in MAPPINGS or hint in MAPPINGS:
        return "a mapping" + (f" of names to {wanted(arguments[1], plural=True)}" if arguments else "")
    if origin is collections.abc.Callable:
        return "a node with _target_ and _partial_: true"
    return f"a node with _target_ for {getattr(hint, '__name__', hint)}"


def shown(value: Any) -> str:
    """Format a value as YAML, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _finite(value: Any) -> bool:
    """Return whether all numbers in a value are finite."""
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return _made_once(hint)
    except TypeError:  # an unhashable hint
        return _made_once.__wrapped__(hint)


@lru_cache(maxsize=1024)
def _made_once(hint: Any) -> TypeAdapter[Any] | None:
    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            return TypeAdapter(hint, config=config)
        except (PydanticUserError, SchemaError, NameError):
            continue  # a type with its own configuration refuses another; a protocol refuses any
    return None


def _bounds(metadata: Sequence[Any]) -> list[str]:
    """Describe the bounds of pydantic and annotated_types: `Field(ge=1)` is "of at least 1"."""
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below", "multiple_of": "divisible by"}
    words |= {"min_length": "with at least {} entries", "max_length": "with at most {} entries"}
    found = []
    for item in metadata:
        for bound in getattr(item, "metadata", None) or [item]:
            for name, phrase in words.items():
                limit = getattr(bound, name, None)
                if limit is not None:
                    found.append(phrase.format(limit) if "{}" in phrase else f"{phrase} {limit}")
    return [" and ".join(found)] if found else []


def _detail(error: ValidationError, value: Any, hint: Any) -> str:
    """Return the wrong entry, or how to write a number as text."""
    first = error.errors(include_url=False)[0]
    if isinstance(value, int | float) and not isinstance(value, bool) and re.search(r"\btext\b", wanted(hint)):
        return f"; for text quote it: \"'{value}'\""
    if isinstance(value, list | Mapping):
        for step in first["loc"]:
            if isinstance(value, list) and isinstance(step, int):
                return f" (entry {step} is {shown(value[step])})"
            if isinstance(value, Mapping) and step in value:
                return f" ('{step}' is {shown(value[step])})"
    return ""
