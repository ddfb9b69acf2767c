"""What a sweep varies, from Hydra's override grammar: `a,b`, `range(1,5)`, `glob(*)`, `interval(1e-5,1e-4)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from embfit.compose.provenance import plain

SEED = "seed"  # a key that is not a choice: results that differ by it differ by chance
SWEEP = ("sweep", "launcher", "hydra")  # groups that say how to run jobs and are not part of a job


@dataclass(frozen=True)
class Span:
    """A range of numbers.

    Args:
        low: the smallest number.
        high: the largest number.
        step: the distance between two numbers; None for an interval.
        log: whether the numbers are spread on a logarithmic scale.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether all numbers in the range are whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class Axis:
    """One key that a sweep varies.

    Args:
        key: a group (`miner`) or a key (`training.lr`).
        values: the values as the command line would write them; empty for an interval.
        span: the numbers of a range or an interval; None for a list of values.
    """

    key: str
    values: tuple[str, ...] = ()
    span: Span | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """All values of a list, or the two ends of a range or an interval."""
        if self.span is None:
            return self.values
        ends = (self.values[0], self.values[-1]) if self.values else (repr(self.span.low), repr(self.span.high))
        return tuple(dict.fromkeys(ends))


@dataclass(frozen=True)
class Space:
    """The values that a sweep fixes and those that it varies.

    Args:
        fixed: the overrides that all jobs share.
        axes: the varied keys, in the order of the command line.
        default: key → the value that a run without the sweep would have; only keys whose axis contains that value.
    """

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    default: Mapping[str, str] = field(default_factory=dict)

    def overrides(self, point: Mapping[str, str]) -> list[str]:
        """Return the overrides of the job at a point."""
        return [*self.fixed, *(f"{key}={value}" for key, value in point.items())]

    def samples(self) -> Iterator[dict[str, str]]:
        """Yield as few points as it takes to contain every named value."""
        for place in range(max((len(axis.named) for axis in self.axes), default=0)):
            yield {axis.key: axis.named[min(place, len(axis.named) - 1)] for axis in self.axes}


def read_space(overrides: Sequence[Override]) -> Space:
    """Return the space of a command line; if it names a key twice, the last one counts."""
    last = {override.get_key_element(): override for override in overrides}
    fixed, axes = [], []
    for key, override in last.items():
        if override.is_sweep_override():
            axes.append(_axis(key, override))
        elif override.key_or_group.split(".")[0].split("/")[0] not in SWEEP:
            fixed.append(str(override.input_line))
    return Space(tuple(fixed), tuple(axes))


def with_default(space: Space, config: DictConfig) -> Space:
    """Add the axes' default values, read from a configuration that only the fixed overrides compose."""
    choices = config.hydra.runtime.choices
    found = {}
    for axis in space.axes:
        value = choices[axis.key] if axis.key in choices else OmegaConf.select(config, axis.key)
        text = _written(axis, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
        if text is not None:
            found[axis.key] = text
    return replace(space, default=found)


def _written(axis: Axis, value: Any) -> str | None:
    """Return a value as the axis writes it; None if the axis does not contain it."""
    if axis.values:
        parse = OverridesParser.create().parse_override
        texts = [text for text in axis.values if plain(parse(f"{axis.key}={text}").value()) == value]
        return texts[0] if texts else None
    span = axis.span
    number = isinstance(value, int if span is None or span.whole else (int, float)) and not isinstance(value, bool)
    if span is None or not number or not span.low <= value <= span.high:
        return None
    return repr(value if span.whole else float(value))


def _axis(key: str, override: Override) -> Axis:
    sweep = override.value()
    values = tuple(map(str, override.sweep_string_iterator())) if override.is_discrete_sweep() else ()
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        return Axis(key, span=Span(sweep.start, sweep.end, log="log" in sweep.tags))
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and sweep.step > 0:
        numbers = [type(sweep.step)(value) if "." not in value else float(value) for value in values]
        return Axis(key, values, Span(numbers[0], numbers[-1], sweep.step))
    return Axis(key, values)
