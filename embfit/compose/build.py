"""Makes the objects that a task names as parameters, and only those."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from embfit.compose.source_signature import is_slow
from embfit.compose.targets import find_target
from embfit.errors import ConfigError

GIVEN = ("run", "devices")
"""What a task may name besides groups and values: the folder of its run, and what the run computes on."""


def bind_task(values: Mapping[str, Any], given: Mapping[str, Callable[[], object]]) -> Callable[[], Any]:
    """Return the configured task with all arguments of its signature bound.

    A parameter is a key of the task's own YAML, one of `GIVEN`, the name of a group or of `store` (whose object is
    made), or a top-level value such as `seed` or `query`. The trainer arrives with its loggers and callbacks, which are
    made for no task that does not name it.

    Args:
        values: the resolved configuration.
        given: the function that returns each of `GIVEN`, called if the task names it.

    Raises:
        ConfigError: the constructor of an object refuses its values.
        UserError: raised by the functions of `given`.
    """
    node = values["task"]
    target = find_target(node["_target_"])
    own = {key: value for key, value in node.items() if not key.startswith("_")}
    bound: dict[str, Any] = {}
    for name in target.parameters:
        if name in own:
            bound[name] = own[name]
        elif name in given:
            bound[name] = given[name]()
        elif name == "trainer":
            bound[name] = _trainer(values)
        elif name in values:
            bound[name] = make(values[name], name)
    return functools.partial(target.call, **bound)


def make(node: Any, key: str) -> Any:
    """Make the object that a node describes; plain values stay as they are.

    Raises:
        ConfigError: the constructor refuses the values (with a `ValueError`).
    """
    if not isinstance(node, Mapping):
        return node
    try:
        return instantiate(
            OmegaConf.create(_literal(_literal(node))), _convert_="all"
        )  # Hydra would resolve interpolations a second time
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            inside = re.search(r"full_key: (\S+)", str(error))
            raise ConfigError(f"{key}{f'.{inside[1]}' if inside else ''}: {cause}") from cause
        raise cause or error from None


def _trainer(values: Mapping[str, Any]) -> functools.partial[Any]:
    """Return a function that makes the Trainer.

    Its callbacks and loggers are lists in Lightning, and mappings in YAML, so that one of them can be left out by name
    (`~trainer.callbacks.NAME`).
    """
    node = dict(values["trainer"])
    call = find_target(node.pop("_target_")).call
    node.pop("_partial_", None)
    settings = make(node, "trainer")
    callbacks = settings.pop("callbacks", None) or {}
    return functools.partial(call, **settings, callbacks=list(callbacks.values()), logger=_loggers(values))


def _loggers(values: Mapping[str, Any]) -> Sequence[Any]:
    """Return the configured loggers; Lightning's own are made only when they are used, because its import is slow.

    Other loggers are made at once, so that a wrong value or a missing package is reported before any work.
    """
    node = values.get("logger") or {}
    make_all = functools.partial(make, node, "logger")
    if node and all(is_slow(str(logger.get("_target_"))) for logger in node.values()):
        return _MadeLater(lambda: list(make_all().values()), len(node))
    return list(make_all().values())


def _literal(value: Any) -> Any:
    """Escape `${` in resolved values, so that resolving them again gives the same values."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


class _MadeLater(Sequence[Any]):
    """A list that is made when an item is accessed first.

    Args:
        make: the function that returns the items.
        length: how many items there will be.
    """

    def __init__(self, make: Callable[[], list[Any]], length: int) -> None:
        self._make = make
        self._length = length
        self._made: list[Any] | None = None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made[place]
