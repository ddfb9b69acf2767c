"""Measurements of steps, read once the device has computed them, so that no step waits for the device."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from embfit.errors import UserError

Watch: TypeAlias = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class PendingMetrics:
    """One step's measurements, while they are copied from the device.

    Args:
        step: the step's number, from 1.
        known: measurements that the host has already, by name.
        names: the names of the other measurements.
        values: [names] those numbers, on the CPU; they are valid once `arrived` returns.
        arrived: waits for the numbers.
    """

    step: int
    known: Mapping[str, float]
    names: tuple[str, ...]
    values: Tensor
    arrived: Callable[[], object]

    def numbers(self) -> dict[str, float]:
        """Wait, and return the numbers by name."""
        self.arrived()
        return {**self.known, **dict(zip(self.names, self.values.tolist(), strict=True))}


class StepMetrics:
    """A queue of measurements. On a GPU the newest one stays in it until the next step has been queued.

    A step's time is measured between two arrivals: when the device finished, not when the host queued the work.
    """

    def __init__(self) -> None:
        self._waiting: deque[PendingMetrics] = deque()
        self._since = time.perf_counter()

    def restart_clock(self) -> None:
        """Measure the next step's time from now on."""
        self._since = time.perf_counter()

    def put(self, step: int, measured: Mapping[str, Tensor | float], device: torch.device) -> None:
        """Start to copy a step's scalars to the host."""
        known = {name: value for name, value in measured.items() if not isinstance(value, Tensor)}
        tensors = {name: value for name, value in measured.items() if isinstance(value, Tensor)}
        values, arrived = _on_the_cpu([value.float() for value in tensors.values()], device)
        self._waiting.append(PendingMetrics(step, known, tuple(tensors), values, arrived))

    def take(self, device: torch.device, to_the_last: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the step and the numbers of finished steps, with `train/pairs` per second.

        Args:
            device: the device that measures.
            to_the_last: whether to wait for the newest step as well.
        """
        kept = 1 if device.type == "cuda" and not to_the_last else 0
        while len(self._waiting) > kept:
            reading = self._waiting.popleft()
            numbers = reading.numbers()
            started, self._since = self._since, time.perf_counter()
            yield reading.step, {**numbers, "train/pairs_per_second": numbers["train/pairs"] / (self._since - started)}


def _on_the_cpu(scalars: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Callable[[], object]]:
    """Return scalars as one tensor on the CPU, and a function that waits until the copy is finished."""
    stacked = torch.stack([scalar.to(device, non_blocking=True) for scalar in scalars])
    if device.type != "cuda":
        return stacked.cpu(), lambda: None
    values = torch.empty(stacked.shape, pin_memory=True).copy_(stacked, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not type it
    event.record()
    return values, event.synchronize


def check(step: int, numbers: Mapping[str, float]) -> None:
    """Raise an error for a step whose loss or gradient is not finite.

    Raises:
        UserError: its loss or its gradient is not finite.
    """
    for what, key in (("loss", "train/loss"), ("gradient's norm", "train/gradient_norm")):
        if not math.isfinite(numbers[key]):
            raise UserError(
                f"the {what} is {numbers[key]} in step {step}; the weights are those of the step before.\n"
                "Lower training.lr or raise loss.temperature; training.precision=fp32 rules out rounding."
            )
