"""Records where each value of a configuration was written, and which values it replaced.

It does not depend on Hydra: `provenance` fills it, the run folder saves it, and `value_table` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

COMMAND_LINE = "command line"
PRIMARY = "conf/config.yaml"  # gives what belongs to no group its default


@dataclass(frozen=True)
class Layer:
    """One writing of a value.

    Args:
        source: the place: `conf/model/minilm.yaml:4`, `acme-pack==1.2:model/legal.yaml:4`, a path and line, or
            `command line`.
        value: the value as written, with interpolations.
    """

    source: str
    value: Any


class Origins(dict[str, str]):
    """Key of a leaf (`training.epochs`) → where it was written. A list is one leaf.

    Attributes:
        layers: maps a key to all places that set it, the effective one first.
        choices: maps a group (`model`, `loss@loss.loss`) to all places that chose it, the effective one first.
    """

    def __init__(self, places: Mapping[str, str] | None = None) -> None:
        super().__init__(places or {})
        self.layers: dict[str, tuple[Layer, ...]] = {}
        self.choices: dict[str, tuple[Layer, ...]] = {}

    def find(self, key: str) -> str:
        """Return the place of a key, of the leaf around it (`callbacks[0].patience`), or of the first leaf below it.

        For a group, or a key that the group lacks, it is the place of the group's choice.
        """
        path = key.replace("[", ".[")
        while path:
            if path in self:
                return self[path]
            if path in self.choices:
                return self.choices[path][0].source
            below = next((place for name, place in self.items() if name.startswith(f"{path}.")), None)
            if below is not None and path == key:
                return below
            path = path.rpartition(".")[0]
        return ""

    def is_default(self, key: str) -> bool:
        """Return whether a key outside all groups has its default value."""
        return self.find(key).rpartition(":")[0] == PRIMARY

    def is_foreign(self, key: str) -> bool:
        """Return whether a key replaced no other, and was set in another file than the `_target_` that receives it."""
        parent = key
        while parent and f"{parent}._target_" not in self:
            parent = parent.rpartition(".")[0]
        homes = {_file(layer.source) for layer in self.layers.get(f"{parent}._target_", ())}
        return len(self.layers.get(key, ())) == 1 and _file(self[key]) not in homes

    def put(self, key: str, place: str, value: Any = None) -> None:
        """Set a leaf, which replaces leaves below the key and a leaf above it."""
        layers = (Layer(place, value), *self.layers.get(key, ()))
        self.drop(key)
        parent = key.rpartition(".")[0]
        while parent:
            self.pop(parent, None)
            self.layers.pop(parent, None)
            parent = parent.rpartition(".")[0]
        self[key] = place
        self.layers[key] = layers

    def drop(self, key: str) -> None:
        """Remove a key and everything below it."""
        for name in [name for name in self if name == key or name.startswith(f"{key}.")]:
            del self[name]
            self.layers.pop(name, None)

    def record(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table of a run's record: `choices` by group and `values` by key, in the order of `values`.

        Each entry holds `value`, `source` and, where there was something to override, `overrode`: a list of the same,
        latest first. An entry whose value was written as an interpolation has it as `written`.
        """
        return {
            "choices": {group: _entry(layers[0].value, layers) for group, layers in self.choices.items()},
            "values": {
                key: _entry(value, self.layers.get(key) or (Layer(self.find(key), value),))
                for key, value in leaves(values)
            },
        }

    @classmethod
    def of(cls, places: Mapping[str, str]) -> Self:
        """Return the places with the values that they overrode, if known."""
        return places if isinstance(places, cls) else cls(places)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Read a table that `record` made.

        Raises:
            KeyError: the content is something else.
        """
        origins = cls({key: entry["source"] for key, entry in record["values"].items()})
        origins.layers = {key: _layers(entry) for key, entry in record["values"].items()}
        origins.choices = {key: _layers(entry) for key, entry in record["choices"].items()}
        return origins


def _file(source: str) -> str:
    name, _, line = source.rpartition(":")
    return name if line.isdigit() else source


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the key and value of each leaf; a list or an empty mapping is one leaf."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def is_reference(value: Any) -> bool:
    """Return whether a value is written as an interpolation (`${seed}`)."""
    return isinstance(value, str) and "${" in value


def _entry(value: Any, layers: tuple[Layer, ...]) -> dict[str, Any]:
    first, *others = layers
    entry = {"value": value, "source": first.source}
    if is_reference(first.value):
        entry["written"] = first.value
    if others:
        entry["overrode"] = [{"value": layer.value, "source": layer.source} for layer in others]
    return entry


def _layers(entry: Mapping[str, Any]) -> tuple[Layer, ...]:
    first = Layer(entry["source"], entry.get("written", entry["value"]))
    return (first, *(Layer(other["source"], other["value"]) for other in entry.get("overrode", ())))
